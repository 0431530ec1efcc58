//! Core modules.

use wasmparser::{ExternalKind, Parser, Payload, TypeRef, Validator};

use super::{
    Budget, Export, Form, Import, InspectError, Inspection, Need, Sections, Sort, features, rights,
};

pub(super) fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    let mut validator = Validator::new_with_features(features(false));
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut sections = Sections::default();
    let mut budget = Budget::new();
    let (mut extism, mut wasi, mut start, mut typed) = (false, false, false, false);
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        validator.payload(&payload)?;
        match &payload {
            Payload::ImportSection(reader) => {
                for import in reader.clone().into_imports() {
                    let import = import?;
                    budget.spend()?;
                    extism |= import.module.starts_with("extism:host/");
                    wasi |= import.module == "wasi_snapshot_preview1";
                    let (sort, (need, why)) = match import.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => {
                            (Sort::Function, rights::of_module_import(import.module, import.name))
                        }
                        _ => (Sort::Core, (Need::Unknown, "only functions are provided")),
                    };
                    imports.push(Import {
                        name: format!("{}/{}", import.module, import.name),
                        sort,
                        need,
                        why,
                        functions: Vec::new(),
                    });
                }
            }
            Payload::ExportSection(reader) => {
                for export in reader.clone() {
                    let export = export?;
                    budget.spend()?;
                    start |= export.name == "_start";
                    exports.push(Export {
                        name: export.name.to_owned(),
                        sort: match export.kind {
                            ExternalKind::Func | ExternalKind::FuncExact => Sort::Function,
                            _ => Sort::Core,
                        },
                        functions: Vec::new(),
                    });
                }
            }
            Payload::CustomSection(section) => {
                typed |= section.name().starts_with("component-type");
                sections.add(section);
            }
            _ => {}
        }
    }
    let form = match () {
        () if extism => Form::Extism,
        () if typed => Form::Embryo,
        () if wasi && start => Form::WasiModule,
        () => Form::Module,
    };
    Ok(Inspection {
        form,
        imports,
        exports,
        tools: Vec::new(),
        asynchronous: false,
        sections: sections.0,
    })
}
