//! What a main module exports: what can be called, and what has to be called first.

use std::collections::HashMap;

use wasmtime::{ExternType, FuncType, Module, ModuleExport, ValType};

use super::fuse;

/// The exported functions of a main module.
pub(in crate::abi) struct Exports {
    functions: HashMap<String, Export>,
    initialisers: Vec<Initialiser>,
}

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Export {
    pub(super) id: ModuleExport,
    /// Its place among the module's exports.
    pub(super) index: usize,
    pub(super) shape: Shape,
}

impl Exports {
    pub(super) fn of(main: &Module) -> Self {
        Self { functions: functions(main), initialisers: initialisers(main) }
    }

    /// The same of a module whose instances begin initialised.
    pub(super) fn initialised(self) -> Self {
        Self { initialisers: Vec::new(), ..self }
    }

    pub(super) fn get(&self, name: &str) -> Option<Export> {
        self.functions.get(name).copied()
    }

    /// Names of those that take nothing and return a code, in order.
    pub(in crate::abi) fn callable(&self) -> Vec<&str> {
        let functions = self.functions.iter().filter(|(_, export)| export.shape == Shape::Code);
        let mut names: Vec<&str> = functions.map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// The steps of guest runtime initialisation, in their order.
    pub(super) fn initialisers(&self) -> &[Initialiser] {
        &self.initialisers
    }
}

/// Whether and how an export can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Returns nothing.
    Unit,
    /// Returns a code.
    Code,
    /// Returns one value that is no `i32`.
    OtherResult,
    /// Returns this many values.
    Results(usize),
    /// Wants this many arguments.
    Parameters(usize),
}

impl Shape {
    fn of(ty: &FuncType) -> Self {
        if ty.results().len() > 1 {
            return Self::Results(ty.results().len());
        }
        if ty.params().len() > 0 {
            return Self::Parameters(ty.params().len());
        }
        match ty.result(0) {
            None => Self::Unit,
            Some(ValType::I32) => Self::Code,
            Some(_) => Self::OtherResult,
        }
    }
}

/// One step of guest runtime initialisation.
#[derive(Clone, Copy)]
pub(super) enum Initialiser {
    /// `_initialize` or `__wasm_call_ctors`.
    Plain(ModuleExport),
    /// Haskell's `hs_init`, which is given no arguments: a count of 0 and a null pointer.
    Haskell(ModuleExport, bool),
}

fn functions(main: &Module) -> HashMap<String, Export> {
    main.exports()
        .enumerate()
        .filter(|(_, export)| !export.name().starts_with(fuse::RESERVED))
        .filter_map(|(index, export)| {
            let ExternType::Func(ty) = export.ty() else { return None };
            let id = main.get_export_index(export.name())?;
            Some((export.name().to_owned(), Export { id, index, shape: Shape::of(&ty) }))
        })
        .collect()
}

fn function_type(module: &Module, name: &str) -> Option<FuncType> {
    match module.get_export(name)? {
        ExternType::Func(ty) => Some(ty),
        _ => None,
    }
}

fn is_plain(module: &Module, name: &str) -> bool {
    function_type(module, name).is_some_and(|ty| ty.params().len() == 0 && ty.results().len() == 0)
}

/// A module with a program to run and no other way to be initialised. One that has both, as some
/// toolchains make, is taken for what it can be called as.
pub(super) fn is_command(module: &Module) -> bool {
    is_plain(module, "_start") && !is_plain(module, "_initialize")
}

/// In the reference's order: Haskell's, else the
/// constructors, else the reactor's. An export of another type hides the later ones and is not called.
fn initialisers(main: &Module) -> Vec<Initialiser> {
    let plain = |name: &str| {
        let id = main.get_export_index(name).filter(|_| is_plain(main, name));
        id.map(Initialiser::Plain)
    };
    if let (Some(ty), Some(id)) = (function_type(main, "hs_init"), main.get_export_index("hs_init")) {
        let returns = match (ty.param(0), ty.param(1), ty.result(0)) {
            (Some(ValType::I32), Some(ValType::I32), None) if ty.params().len() == 2 => Some(false),
            (Some(ValType::I32), Some(ValType::I32), Some(ValType::I32)) if ty.params().len() == 2 => {
                Some(true)
            }
            _ => None,
        };
        let haskell = returns.map(|returns| Initialiser::Haskell(id, returns));
        return plain("_initialize").into_iter().chain(haskell).collect();
    }
    if main.get_export_index("__wasm_call_ctors").is_some() {
        return plain("__wasm_call_ctors").into_iter().collect();
    }
    plain("_initialize").into_iter().collect()
}
