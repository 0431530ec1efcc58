//! Puts the kernel into a plugin's module: one module comes out, with the plugin's code as it was, the
//! kernel's functions behind it, and the kernel's two memories, which the plugin's code cannot name.
//!
//! So an instance is one instance, a call of the kernel is a plain call, and the six functions that move
//! bytes become single instructions where they are called. Imports that are not the kernel's stay.

use std::{collections::HashMap, convert::Infallible};

use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, FunctionSection, ImportSection, Instruction, MemArg,
    MemorySection, Module, SectionId, TypeSection,
    reencode::{self, Reencode},
};
use wasmparser::{
    CompositeInnerType, Encoding, ExternalKind, FuncType, Operator, Parser, Payload, TypeRef,
    Validator,
};

use crate::WasmError;

/// The kernel, assembled from `kernel.wat`.
pub(crate) const KERNEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernel.wasm"));
/// The module that plugins import from.
pub(crate) const ENV: &str = "extism:host/env";
/// The exported names of the kernel's memories in a linked module.
pub(crate) const DATA: &str = "palisade:extism/data";
pub(crate) const STATE: &str = "palisade:extism/state";

fn refused(what: impl Into<String>) -> WasmError {
    WasmError::Code {
        what: what.into(),
        hint: "build it with a current Extism PDK for wasm32-unknown-unknown or wasm32-wasip1"
            .into(),
    }
}

fn broken(error: impl std::fmt::Display) -> WasmError {
    let text = error.to_string();
    refused(format!(
        "it is not a valid WebAssembly module: {}",
        palisade_model::text::escape(&text, 300)
    ))
}

/// What has to be known of a module before it is written anew.
#[derive(Default)]
struct Outline {
    types: Vec<Option<FuncType>>,
    /// Imported functions in order: where from, name, type.
    imports: Vec<(String, String, u32)>,
    /// Functions of its own.
    functions: u32,
    /// Memories, imported ones too.
    memories: u32,
    exports: Vec<(String, ExternalKind, u32)>,
    function_types: Vec<u32>,
}

impl Outline {
    fn read(bytes: &[u8]) -> Result<Self, WasmError> {
        let mut outline = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(broken)? {
                Payload::Version { encoding: Encoding::Component, .. } => {
                    return Err(WasmError::Code {
                        what: "it is a component, and Extism has modules".into(),
                        hint: "write `kind: wasm` for a component".into(),
                    });
                }
                Payload::TypeSection(section) => {
                    for group in section {
                        for sub in group.map_err(broken)?.into_types() {
                            outline.types.push(match sub.composite_type.inner {
                                CompositeInnerType::Func(func) => Some(func),
                                _ => None,
                            });
                        }
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.map_err(broken)?;
                        match import.ty {
                            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                                outline.imports.push((
                                    import.module.into(),
                                    import.name.into(),
                                    ty,
                                ));
                            }
                            _ => {
                                let shown = format!("{}/{}", import.module, import.name);
                                let shown = palisade_model::text::escape(&shown, 200);
                                return Err(refused(format!(
                                    "it imports {shown}, which is not a function"
                                )));
                            }
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    for ty in section {
                        outline.function_types.push(ty.map_err(broken)?);
                        outline.functions += 1;
                    }
                }
                Payload::MemorySection(section) => outline.memories += section.count(),
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export.map_err(broken)?;
                        outline.exports.push((export.name.into(), export.kind, export.index));
                    }
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    fn function_type(&self, function: u32) -> Option<&FuncType> {
        let imported = self.imports.len();
        let function = usize::try_from(function).ok()?;
        let ty = match function.checked_sub(imported) {
            None => self.imports.get(function)?.2,
            Some(own) => *self.function_types.get(own)?,
        };
        self.types.get(usize::try_from(ty).ok()?)?.as_ref()
    }
}

/// Links `module` with the kernel.
///
/// # Errors
/// The bytes are not a valid module, offer nothing, or import something of `extism:host/env` with a type that
/// it does not have.
pub(crate) fn link(module: &[u8]) -> Result<Vec<u8>, WasmError> {
    // The plugin's code is checked before the kernel's memories stand beside its own: afterwards a number
    // that means nothing in it would mean one of those.
    Validator::new().validate_all(module).map_err(broken)?;
    let plugin = Outline::read(module)?;
    let kernel = Outline::read(KERNEL)?;
    if plugin.functions == 0 || plugin.exports.is_empty() {
        return Err(refused("it offers no functions"));
    }
    let exports: HashMap<&str, u32> = kernel
        .exports
        .iter()
        .filter(|(_, kind, _)| *kind == ExternalKind::Func)
        .map(|(name, _, index)| (name.as_str(), *index))
        .collect();

    let mut kept = 0;
    let mut places = Vec::with_capacity(plugin.imports.len());
    for (from, name, ty) in &plugin.imports {
        let kernel_function = (from == ENV).then(|| exports.get(name.as_str())).flatten();
        places.push(match kernel_function {
            None => {
                kept += 1;
                Place::Import(kept - 1)
            }
            Some(function) => {
                let ty = usize::try_from(*ty).ok().and_then(|ty| plugin.types.get(ty)?.as_ref());
                if ty.is_none() || ty != kernel.function_type(*function) {
                    return Err(refused(format!(
                        "it imports {name} of {ENV} with another type than it has"
                    )));
                }
                Place::Kernel { function: *function, name: name.clone() }
            }
        });
    }
    let moves_input =
        plugin.imports.iter().any(|(from, name, _)| from == ENV && name == "input_set");
    let first = Numbers {
        types: u32::try_from(plugin.types.len()).map_err(broken)?,
        functions: kept + plugin.functions,
        memories: plugin.memories,
    };
    let mut linker = Linker { places, kept, first, moves_input, memories_done: false };
    let mut linked = Module::new();
    linker.parse_core_module(&mut linked, Parser::new(0), module).map_err(broken)?;
    Ok(linked.finish())
}

/// The first numbers of the kernel's things in a linked module.
#[derive(Clone, Copy)]
struct Numbers {
    types: u32,
    functions: u32,
    memories: u32,
}

/// What an imported function becomes.
enum Place {
    Import(u32),
    Kernel { function: u32, name: String },
}

struct Linker {
    places: Vec<Place>,
    /// Imports that stay.
    kept: u32,
    first: Numbers,
    moves_input: bool,
    memories_done: bool,
}

type Written = Result<(), reencode::Error<Infallible>>;

impl Linker {
    fn place(&self, function: u32) -> Option<&Place> {
        self.places.get(usize::try_from(function).ok()?)
    }

    /// The instruction that does what a call of `function` would.
    fn direct(&self, function: u32) -> Option<Instruction<'static>> {
        /// Where the input begins: it is the first block.
        const INPUT: u64 = 16;
        let Some(Place::Kernel { name, .. }) = self.place(function) else { return None };
        let at = |offset| MemArg { offset, align: 0, memory_index: self.first.memories };
        Some(match name.as_str() {
            "load_u8" => Instruction::I32Load8U(at(0)),
            "load_u64" => Instruction::I64Load(at(0)),
            "store_u8" => Instruction::I32Store8(at(0)),
            "store_u64" => Instruction::I64Store(at(0)),
            "input_load_u8" if !self.moves_input => Instruction::I32Load8U(at(INPUT)),
            "input_load_u64" if !self.moves_input => Instruction::I64Load(at(INPUT)),
            _ => return None,
        })
    }

    fn kernel_memories(&mut self, memories: &mut MemorySection) -> Written {
        self.memories_done = true;
        each(|payload| match payload {
            Payload::MemorySection(section) => {
                KernelPart(self.first).parse_memory_section(memories, section)
            }
            _ => Ok(()),
        })
    }
}

/// Goes through the kernel's sections.
fn each(mut take: impl FnMut(Payload<'static>) -> Written) -> Written {
    for payload in Parser::new(0).parse_all(KERNEL) {
        take(payload?)?;
    }
    Ok(())
}

impl Reencode for Linker {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, reencode::Error<Infallible>> {
        let imported = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        Ok(match self.place(function) {
            Some(Place::Import(number)) => *number,
            Some(Place::Kernel { function, .. }) => self.first.functions + function,
            None => function - imported + self.kept,
        })
    }

    fn instruction<'a>(
        &mut self,
        operator: Operator<'a>,
    ) -> Result<Instruction<'a>, reencode::Error<Infallible>> {
        if let Operator::Call { function_index } = operator
            && let Some(direct) = self.direct(function_index)
        {
            return Ok(direct);
        }
        reencode::utils::instruction(self, operator)
    }

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Written {
        reencode::utils::parse_type_section(self, types, section)?;
        each(|payload| match payload {
            Payload::TypeSection(section) => {
                KernelPart(self.first).parse_type_section(types, section)
            }
            _ => Ok(()),
        })
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: wasmparser::ImportSectionReader<'_>,
    ) -> Written {
        for (number, import) in (0..).zip(section.into_imports()) {
            let import = import?;
            if matches!(self.place(number), Some(Place::Import(_))) {
                imports.import(import.module, import.name, self.entity_type(import.ty)?);
            }
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Written {
        reencode::utils::parse_function_section(self, functions, section)?;
        each(|payload| match payload {
            Payload::FunctionSection(section) => {
                KernelPart(self.first).parse_function_section(functions, section)
            }
            _ => Ok(()),
        })
    }

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: wasmparser::MemorySectionReader<'_>,
    ) -> Written {
        reencode::utils::parse_memory_section(self, memories, section)?;
        self.kernel_memories(memories)
    }

    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        _after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Written {
        // A plugin without a memory of its own has no section for them: it goes before the first that
        // stands behind its place.
        let earlier = matches!(
            before,
            Some(
                SectionId::Custom
                    | SectionId::Type
                    | SectionId::Import
                    | SectionId::Function
                    | SectionId::Table
                    | SectionId::Memory
            )
        );
        if !earlier && !self.memories_done {
            let mut memories = MemorySection::new();
            self.kernel_memories(&mut memories)?;
            module.section(&memories);
        }
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Written {
        reencode::utils::parse_export_section(self, exports, section)?;
        exports.export(DATA, ExportKind::Memory, self.first.memories);
        exports.export(STATE, ExportKind::Memory, self.first.memories + 1);
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Written {
        reencode::utils::parse_code_section(self, code, section)?;
        each(|payload| match payload {
            Payload::CodeSectionEntry(body) => {
                KernelPart(self.first).parse_function_body(code, body)
            }
            _ => Ok(()),
        })
    }

    fn parse_custom_section(
        &mut self,
        _module: &mut Module,
        _section: wasmparser::CustomSectionReader<'_>,
    ) -> Written {
        // Names and debug information of code that has moved.
        Ok(())
    }
}

/// The kernel's own numbers, moved behind the plugin's.
struct KernelPart(Numbers);

impl Reencode for KernelPart {
    type Error = Infallible;

    fn type_index(&mut self, ty: u32) -> Result<u32, reencode::Error<Infallible>> {
        Ok(self.0.types + ty)
    }

    fn function_index(&mut self, function: u32) -> Result<u32, reencode::Error<Infallible>> {
        Ok(self.0.functions + function)
    }

    fn memory_index(&mut self, memory: u32) -> Result<u32, reencode::Error<Infallible>> {
        Ok(self.0.memories + memory)
    }
}
