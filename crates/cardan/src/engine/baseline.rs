//! The compiler that is done soon: Winch, in one pass.
//!
//! It compiles a large module several times faster than the optimising compiler does, and its code runs
//! slower. Plugins that would keep their first calls waiting begin with it; `docs/adr/0010-tiers.md`.

use wasmtime::{Config, Strategy};

/// The engine's configuration, changed for the baseline compiler, which lacks some proposals. Modules that
/// use those do not compile with it.
pub(super) fn config(mut config: Config) -> Config {
    config
        .strategy(Strategy::Winch)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        .wasm_function_references(false)
        .wasm_gc(false)
        .wasm_exceptions(false);
    config
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use wasmtime::{Engine, Linker, Module, Store, Trap, UpdateDeadline};

    use super::super::{EngineConfig, base_config};

    /// wasmtime's documentation has it that the two do not go together. What they do is what counts.
    #[test]
    fn the_clock_interrupts_its_code() {
        let engine = Engine::new(&super::config(base_config(&EngineConfig::default()))).unwrap();
        for body in [
            "(loop (br 0))",
            "(loop (call $leaf) (br 0))",
            "(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br 0))",
            "(call $mutual)",
        ] {
            let module = format!(
                r#"(module (memory 1) (memory 1) (func $leaf) (func $mutual (loop (call $leaf) (br 0)))
                     (func (export "run") {body}))"#
            );
            let module = Module::from_binary(&engine, &wat::parse_str(module).unwrap()).unwrap();
            let mut store = Store::new(&engine, 0_u32);
            store.set_epoch_deadline(1);
            // As the runtime has it: looked at several times before the end.
            store.epoch_deadline_callback(|mut context| {
                *context.data_mut() += 1;
                if *context.data() < 5 {
                    Ok(UpdateDeadline::Continue(1))
                } else {
                    Err(Trap::Interrupt.into())
                }
            });
            let instance = Linker::new(&engine).instantiate(&mut store, &module).unwrap();
            let run = instance.get_typed_func::<(), ()>(&mut store, "run").unwrap();
            let ticking = engine.clone();
            let (done, stop) = std::sync::mpsc::channel::<()>();
            let ticker = std::thread::spawn(move || {
                while stop
                    .recv_timeout(Duration::from_millis(1))
                    .is_err_and(|it| it.to_string().contains("timed"))
                {
                    ticking.increment_epoch();
                }
            });
            let started = Instant::now();
            let error = run.call(&mut store, ()).unwrap_err();
            drop(done);
            ticker.join().unwrap();
            assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::Interrupt), "{body}: {error:?}");
            assert_eq!(*store.data(), 5, "{body}");
            assert!(started.elapsed() < Duration::from_secs(5), "{body}");
        }
    }
}
