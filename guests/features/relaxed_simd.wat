;; Relaxed SIMD.
;; A host that has it: `run` returns 0.
(module
  (func (export "run") (result i32)
    (f32.ne
      (f32x4.extract_lane 0
        (f32x4.relaxed_madd (f32x4.splat (f32.const 2)) (f32x4.splat (f32.const 3)) (f32x4.splat (f32.const 4))))
      (f32.const 10))))
