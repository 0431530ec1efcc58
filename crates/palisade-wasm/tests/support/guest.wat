;; A plugin by hand. `call` looks at the first letter of the tool's name:
;; e echo, c count, s spin, t trap, m memory until refused, h hold one page more, b tables until refused,
;; d deep recursion, j no JSON, g a text that lies outside, l a long wait in the host, k storage.get,
;; K storage.get with a key of 16 MiB, f its own failure, r random bytes beyond the bound,
;; i what it was initialized with, w work for a while (args: a number of rounds is fixed)
(module
  (import "palisade:plugin/clock@0.1.0" "sleep" (func $sleep (param i64)))
  (import "palisade:plugin/storage@0.1.0" "get" (func $get (param i32 i32 i32)))
  (import "palisade:plugin/random@0.1.0" "bytes" (func $random (param i32 i32)))
  (memory (export "memory") 2)
  (table $table 1 funcref)
  (global $next (mut i32) (i32.const 4096))
  (global $count (mut i32) (i32.const 0))
  (global $config (mut i32) (i32.const 0))
  (data (i32.const 1024) "PAL-CONFLICT")
  (data (i32.const 1040) "not today")
  (data (i32.const 1060) "{nonsense")

  ;; Grows the memory as needed. What was given out is forgotten after each call.
  (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (block $enough
      (br_if $enough (i32.le_u (global.get $next) (i32.shl (memory.size) (i32.const 16))))
      (br_if $enough (i32.ne (i32.const -1)
        (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get 3) (i32.const 16))))))
      unreachable)
    (local.get $at))

  ;; Nothing is said of itself. The first byte of the configuration after `{"v":` is kept.
  (func (export "palisade:plugin/guest@0.1.0#initialize")
    (param $id i32) (param i32) (param $config i32) (param $length i32) (param i32 i32 i32 i32) (result i32)
    (if (i32.gt_u (local.get $length) (i32.const 5))
      (then (global.set $config (i32.load8_u offset=5 (local.get $config)))))
    (memory.fill (i32.const 64) (i32.const 0) (i32.const 128))
    (global.set $next (i32.const 4096))
    (i32.const 64))

  (func $deep (param i64) (result i64)
    (i64.add (i64.const 1) (call $deep (i64.add (local.get 0) (i64.const 1)))))

  (func $answer (param $at i32) (param $length i32)
    (i32.store8 (i32.const 64) (i32.const 0))
    (i32.store (i32.const 72) (local.get $at))
    (i32.store (i32.const 76) (local.get $length)))

  ;; A number of up to nine digits.
  (func $number (param $n i32)
    (local $at i32)
    (local.set $at (i32.const 1200))
    (loop $more
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
      (local.set $n (i32.div_u (local.get $n) (i32.const 10)))
      (br_if $more (local.get $n)))
    (call $answer (local.get $at) (i32.sub (i32.const 1200) (local.get $at))))

  (func $spin (param $rounds i64)
    (loop $again
      (local.set $rounds (i64.sub (local.get $rounds) (i64.const 1)))
      (br_if $again (i64.ne (local.get $rounds) (i64.const 0)))))

  (func $is (param $tool i32) (param $letter i32) (result i32)
    (i32.eq (i32.load8_u (local.get $tool)) (local.get $letter)))

  (func (export "palisade:plugin/guest@0.1.0#call")
    (param $tool i32) (param i32) (param $args i32) (param $length i32) (result i32)
    (memory.fill (i32.const 64) (i32.const 0) (i32.const 128))
    (call $answer (local.get $args) (local.get $length))
    ;; c
    (if (call $is (local.get $tool) (i32.const 99)) (then
      (global.set $count (i32.add (global.get $count) (i32.const 1)))
      (call $number (global.get $count))))
    ;; i
    (if (call $is (local.get $tool) (i32.const 105)) (then (call $number (i32.sub (global.get $config) (i32.const 48)))))
    ;; s
    (if (call $is (local.get $tool) (i32.const 115)) (then (call $spin (i64.const -1))))
    ;; w
    (if (call $is (local.get $tool) (i32.const 119)) (then (call $spin (i64.const 400000000))))
    ;; t
    (if (call $is (local.get $tool) (i32.const 116)) (then unreachable))
    ;; m
    (if (call $is (local.get $tool) (i32.const 109)) (then
      (loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 1)))))
      unreachable))
    ;; h
    (if (call $is (local.get $tool) (i32.const 104)) (then
      (call $number (i32.add (i32.const 1) (memory.grow (i32.const 1))))))
    ;; b
    (if (call $is (local.get $tool) (i32.const 98)) (then
      (loop $more (br_if $more (i32.ne (i32.const -1) (table.grow $table (ref.null func) (i32.const 10000)))))
      unreachable))
    ;; d
    (if (call $is (local.get $tool) (i32.const 100)) (then (drop (call $deep (i64.const 0)))))
    ;; j
    (if (call $is (local.get $tool) (i32.const 106)) (then (call $answer (i32.const 1060) (i32.const 9))))
    ;; g
    (if (call $is (local.get $tool) (i32.const 103)) (then (call $answer (i32.const 1060) (i32.const 0x7fffffff))))
    ;; l
    (if (call $is (local.get $tool) (i32.const 108)) (then (call $sleep (i64.const 3600000))))
    ;; k
    (if (call $is (local.get $tool) (i32.const 107)) (then
      (call $get (i32.const 1024) (i32.const 3) (i32.const 256))
      (call $number (i32.load8_u (i32.const 256)))))
    ;; K
    (if (call $is (local.get $tool) (i32.const 75)) (then
      (drop (memory.grow (i32.const 300)))
      (call $get (i32.const 1024) (i32.const 0x1000000) (i32.const 256))))
    ;; r
    (if (call $is (local.get $tool) (i32.const 114)) (then (call $random (i32.const 70000) (i32.const 256))))
    ;; f
    (if (call $is (local.get $tool) (i32.const 102)) (then
      (i32.store8 (i32.const 64) (i32.const 1))
      (i32.store (i32.const 72) (i32.const 1024)) (i32.store (i32.const 76) (i32.const 12))
      (i32.store (i32.const 80) (i32.const 1040)) (i32.store (i32.const 84) (i32.const 9))))
    (i32.const 64))

  (func (export "cabi_post_palisade:plugin/guest@0.1.0#call") (param i32)
    (global.set $next (i32.const 4096)))
)
