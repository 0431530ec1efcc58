;; Opens the file `file` of the first granted folder as often as it can.
(module
  (import "wasi_snapshot_preview1" "path_open" (func $open
    (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "file")
  ;; The last number that was given out stands at 32.
  (func $fill (export "fill") (result i32) (local $error i32) (local $opened i32)
    (loop $more
      (local.set $error (call $open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 4)
        (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
      (if (i32.eqz (local.get $error)) (then
        (local.set $opened (i32.add (local.get $opened) (i32.const 1)))
        (br $more))))
    (i32.add (i32.mul (local.get $opened) (i32.const 100)) (local.get $error)))
  (func (export "again") (result i32) (local $last i32)
    (local.set $last (i32.load (i32.const 32)))
    (drop (call $close (local.get $last)))
    (drop (call $close (i32.sub (local.get $last) (i32.const 1))))
    (drop (call $close (i32.sub (local.get $last) (i32.const 2))))
    (call $fill))
  ;; Random bytes: as many as one call gives, and one more.
  (func (export "random") (result i32) (call $random (i32.const 1024) (i32.const 65536)))
  (func (export "random-too-many") (result i32) (call $random (i32.const 1024) (i32.const 65537))))
