;; The memory half of `extism:host/env`, for one instance of an Extism module.
;;
;; link.rs puts these functions and memories into the plugin's own module, so that what a plugin does with
;; its blocks never enters the host. Whatever a plugin passes has a defined result: a handle that is not
;; one counts as none; reading or writing bytes that are not there is a trap, as in the plugin's own memory.
;;
;; Two memories. $data holds the blocks; a plugin's loads and stores reach all of it and nothing else.
;; $state holds what the allocator knows; only this text and the host (kernel.rs, its twin for the host's
;; own blocks) reach it, so that no plugin can make the lists wrong. Both are zero at first, and that is a
;; valid beginning; `reset` sets a few words back and leaves the blocks' old bytes where they are.
;;
;; $state, in bytes:
;;    0 u32  bump: how much of $data is given out, a multiple of 16
;;    4 u32  records: how many blocks the table below has
;;    8 u64  input: offset         16 u64  its length
;;   24 u64  output: offset        32 u64  its length
;;   40 u64  error: handle
;;   64      freed blocks, a list for each class of size: u32, number of the first record, 0: none
;;  512      table, 16 bytes a block, numbered from 1: u32 handle, u32 capacity, u32 length (0: freed),
;;           u32 number of the next record of the list
;;
;; A block has 8 bytes before its handle, of which the first four say its number in the table. A plugin can
;; write there; `find` believes it only if the table agrees. The first block, and so the input, is at 16.
;; Capacities (those 8 bytes included) are rounded up to classes: 16, 32, 48, 64, then four to each doubling.
(module
  ;; At most 2 GiB: then no number of blocks makes a table that $state cannot have.
  (memory $data (export "data") i64 2 32768)
  (memory $state (export "state") 1)

  ;; The size of $data in bytes.
  (func $size (result i64)
    (i64.shl (memory.size $data) (i64.const 16)))

  ;; Rounds a need of 9 to 2^31 bytes up; gives the capacity and its class.
  (func $round (param $need i32) (result i32 i32)
    (local $shift i32) (local $capacity i32)
    (if (i32.le_u (local.get $need) (i32.const 64))
      (then
        (local.set $capacity (i32.and (i32.add (local.get $need) (i32.const 15)) (i32.const -16)))
        (return
          (local.get $capacity)
          (i32.sub (i32.shr_u (local.get $capacity) (i32.const 4)) (i32.const 1)))))
    ;; 2^$shift is the smallest power of two that holds the need; a class is an eighth of it.
    (local.set $shift
      (i32.sub (i32.const 32) (i32.clz (i32.sub (local.get $need) (i32.const 1)))))
    (local.set $capacity
      (i32.shl
        (i32.add
          (i32.shr_u
            (i32.sub (local.get $need) (i32.const 1))
            (i32.sub (local.get $shift) (i32.const 3)))
          (i32.const 1))
        (i32.sub (local.get $shift) (i32.const 3))))
    (local.get $capacity)
    ;; 4 + 4 * ($shift - 7) + (capacity in eighths, 5 to 8) - 5
    (i32.sub
      (i32.add
        (i32.shl (local.get $shift) (i32.const 2))
        (i32.shr_u (local.get $capacity) (i32.sub (local.get $shift) (i32.const 3))))
      (i32.const 29)))

  ;; The record of a handle that stands for a block, as an offset in $state; otherwise 0.
  (func $find (param $handle i64) (result i32)
    (local $number i32) (local $record i32)
    (if (i64.lt_u (local.get $handle) (i64.const 16)) (then (return (i32.const 0))))
    ;; A handle is 16 after the bump that its block began at, so that of the last block may be the bump.
    (if (i64.gt_u (local.get $handle) (i64.extend_i32_u (i32.load $state (i32.const 0))))
      (then (return (i32.const 0))))
    (local.set $number
      (i32.sub
        (i32.load $data (i64.sub (local.get $handle) (i64.const 8)))
        (i32.const 1)))
    (if (i32.ge_u (local.get $number) (i32.load $state (i32.const 4)))
      (then (return (i32.const 0))))
    (local.set $record
      (i32.add (i32.const 512) (i32.shl (local.get $number) (i32.const 4))))
    (if (i64.ne
          (i64.extend_i32_u (i32.load $state offset=0 (local.get $record)))
          (local.get $handle))
      (then (return (i32.const 0))))
    (if (i32.eqz (i32.load $state offset=8 (local.get $record)))
      (then (return (i32.const 0))))
    (local.get $record))

  ;; A block of so many bytes; 0: none was asked for, or there is no memory.
  (func (export "alloc") (param $length i64) (result i64)
    (local $capacity i32) (local $class i32) (local $number i32) (local $record i32)
    (local $handle i32) (local $missing i64)
    (if (i64.eqz (local.get $length)) (then (return (i64.const 0))))
    (if (i64.gt_u (local.get $length) (i64.const 0x7ffffff0)) (then (return (i64.const 0))))
    (call $round (i32.add (i32.wrap_i64 (local.get $length)) (i32.const 8)))
    (local.set $class)
    (local.set $capacity)
    (local.set $number
      (i32.load $state offset=64 (i32.shl (local.get $class) (i32.const 2))))
    (if (local.get $number)
      (then
        ;; A freed one of this class.
        (local.set $record
          (i32.add (i32.const 496) (i32.shl (local.get $number) (i32.const 4))))
        (i32.store $state offset=64
          (i32.shl (local.get $class) (i32.const 2))
          (i32.load $state offset=12 (local.get $record)))
        (local.set $handle (i32.load $state offset=0 (local.get $record))))
      (else
        ;; A new one at the end: first room for its bytes, then for its record, then both are taken.
        (local.set $missing
          (i64.sub
            (i64.add
              (i64.extend_i32_u (i32.load $state (i32.const 0)))
              (i64.add (i64.extend_i32_u (local.get $capacity)) (i64.const 8)))
            (call $size)))
        (if (i64.gt_s (local.get $missing) (i64.const 0))
          (then
            (if (i64.eq
                  (memory.grow $data
                    (i64.shr_u (i64.add (local.get $missing) (i64.const 65535)) (i64.const 16)))
                  (i64.const -1))
              (then (return (i64.const 0))))))
        (local.set $number (i32.add (i32.load $state (i32.const 4)) (i32.const 1)))
        (local.set $record
          (i32.add (i32.const 496) (i32.shl (local.get $number) (i32.const 4))))
        (if (i32.ge_u
              (i32.shr_u (i32.add (local.get $record) (i32.const 15)) (i32.const 16))
              (memory.size $state))
          (then
            (if (i32.eq (memory.grow $state (i32.const 1)) (i32.const -1))
              (then (return (i64.const 0))))))
        (local.set $handle (i32.add (i32.load $state (i32.const 0)) (i32.const 16)))
        (i32.store $state (i32.const 0)
          (i32.add (i32.load $state (i32.const 0)) (local.get $capacity)))
        (i32.store $state (i32.const 4) (local.get $number))
        (i32.store $state offset=0 (local.get $record) (local.get $handle))
        (i32.store $state offset=4 (local.get $record) (local.get $capacity))))
    (i32.store $state offset=8 (local.get $record) (i32.wrap_i64 (local.get $length)))
    (i32.store $data
      (i64.extend_i32_u (i32.sub (local.get $handle) (i32.const 8)))
      (local.get $number))
    (i64.extend_i32_u (local.get $handle)))

  ;; Gives a block back. What is not a block's handle is passed over.
  (func (export "free") (param $handle i64)
    (local $record i32) (local $number i32) (local $capacity i32) (local $class i32)
    (local.set $record (call $find (local.get $handle)))
    (if (i32.eqz (local.get $record)) (then (return)))
    (i32.store $state offset=8 (local.get $record) (i32.const 0))
    (if (i64.eq (local.get $handle) (i64.load $state (i32.const 8)))
      (then
        ;; The input is gone with its block.
        (i64.store $state (i32.const 16) (i64.const 0))))
    (local.set $number
      (i32.shr_u (i32.sub (local.get $record) (i32.const 496)) (i32.const 4)))
    (local.set $capacity (i32.load $state offset=4 (local.get $record)))
    (if (i32.eq (local.get $number) (i32.load $state (i32.const 4)))
      (then
        ;; The last one: as if it had never been.
        (i32.store $state (i32.const 4) (i32.sub (local.get $number) (i32.const 1)))
        (i32.store $state (i32.const 0)
          (i32.sub (i32.load $state (i32.const 0)) (local.get $capacity)))
        (return)))
    (call $round (local.get $capacity))
    (local.set $class)
    (drop)
    (i32.store $state offset=12
      (local.get $record)
      (i32.load $state offset=64 (i32.shl (local.get $class) (i32.const 2))))
    (i32.store $state offset=64
      (i32.shl (local.get $class) (i32.const 2))
      (local.get $number)))

  ;; How long a block is; 0: it is none. `length_unsafe` may be wrong for what is not a handle with
  ;; other hosts; here both are right and cost the same.
  (func $length (export "length") (export "length_unsafe") (param $handle i64) (result i64)
    (local $record i32)
    (local.set $record (call $find (local.get $handle)))
    (if (result i64) (local.get $record)
      (then (i64.extend_i32_u (i32.load $state offset=8 (local.get $record))))
      (else (i64.const 0))))

  ;; These six are what plugins spend their calls on; link.rs writes them out where they are called.
  (func (export "load_u8") (param $offset i64) (result i32)
    (i32.load8_u $data (local.get $offset)))

  (func (export "load_u64") (param $offset i64) (result i64)
    (i64.load $data align=1 (local.get $offset)))

  (func (export "store_u8") (param $offset i64) (param $byte i32)
    (i32.store8 $data (local.get $offset) (local.get $byte)))

  (func (export "store_u64") (param $offset i64) (param $bytes i64)
    (i64.store $data align=1 (local.get $offset) (local.get $bytes)))

  ;; Offsets are from the input's beginning, which was checked when it was set.
  (func (export "input_load_u8") (param $offset i64) (result i32)
    (if (i64.ge_u (local.get $offset) (i64.load $state (i32.const 16)))
      (then (return (i32.const 0))))
    (i32.load8_u $data (i64.add (i64.load $state (i32.const 8)) (local.get $offset))))

  (func (export "input_load_u64") (param $offset i64) (result i64)
    (if (i64.ge_u (local.get $offset) (i64.load $state (i32.const 16)))
      (then (return (i64.const 0))))
    (i64.load $data align=1 (i64.add (i64.load $state (i32.const 8)) (local.get $offset))))

  ;; Whether so many bytes at this offset are memory that a block could have.
  (func $there (param $offset i64) (param $length i64) (result i32)
    (if (i64.lt_u (local.get $offset) (i64.const 16)) (then (return (i32.const 0))))
    (if (i64.ge_u (local.get $offset) (call $size)) (then (return (i32.const 0))))
    (i64.le_u (local.get $length) (i64.sub (call $size) (local.get $offset))))

  ;; What is not there changes nothing: a Rust plugin that gives `()` after it has set its output
  ;; itself sets (0, 0) last.
  (func (export "input_set") (param $offset i64) (param $length i64)
    (if (i32.eqz (call $there (local.get $offset) (local.get $length))) (then (return)))
    (i64.store $state (i32.const 8) (local.get $offset))
    (i64.store $state (i32.const 16) (local.get $length)))

  (func (export "output_set") (param $offset i64) (param $length i64)
    (if (i32.eqz (call $there (local.get $offset) (local.get $length))) (then (return)))
    (i64.store $state (i32.const 24) (local.get $offset))
    (i64.store $state (i32.const 32) (local.get $length)))

  (func (export "input_offset") (result i64) (i64.load $state (i32.const 8)))
  (func (export "input_length") (result i64) (i64.load $state (i32.const 16)))
  (func (export "output_offset") (result i64) (i64.load $state (i32.const 24)))
  (func (export "output_length") (result i64) (i64.load $state (i32.const 32)))

  ;; 0 takes the error back; what is no memory changes nothing.
  (func (export "error_set") (param $handle i64)
    (if (i32.or
          (i64.eqz (local.get $handle))
          (call $there (local.get $handle) (i64.const 0)))
      (then (i64.store $state (i32.const 40) (local.get $handle)))))

  (func (export "error_get") (result i64) (i64.load $state (i32.const 40)))

  ;; As it was at first, but for the bytes of old blocks.
  (func (export "reset")
    (memory.fill $state (i32.const 0) (i32.const 0) (i32.const 512)))

  ;; How many bytes blocks can have before memory has to grow.
  (func (export "memory_bytes") (result i64)
    (i64.sub (call $size) (i64.const 16))))
