//! From the types of a component to [`Shape`]s, within bounds.

use wasmparser::{
    PrimitiveValType,
    component_types::{
        ComponentDefinedType, ComponentDefinedTypeId, ComponentFuncTypeId, ComponentValType,
    },
    types::Types,
};

use crate::reflect::{
    Signature,
    shape::{Case, Field, MAX_DEPTH, MAX_NODES, Shape, Width},
};

/// What a function takes and gives; where that has no form in JSON, why.
pub(super) fn signature(types: &Types, id: ComponentFuncTypeId) -> Result<Signature, String> {
    let function = &types[id];
    let mut walk = Walk { types, left: MAX_NODES, depth: 0 };
    let mut parameters = Vec::with_capacity(function.params.len());
    for (name, ty) in &function.params {
        let shape = walk.value(ty).map_err(|why| format!("its parameter {name} is {why}"))?;
        parameters.push(Field { name: name.to_string(), shape });
    }
    let result = match &function.result {
        Some(ty) => Some(walk.value(ty).map_err(|why| format!("its result is {why}"))?),
        None => None,
    };
    Ok(Signature { parameters, result, asynchronous: function.async_ })
}

struct Walk<'a> {
    types: &'a Types,
    left: usize,
    depth: usize,
}

impl Walk<'_> {
    fn value(&mut self, ty: &ComponentValType) -> Result<Shape, String> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| format!("of a type with more than {MAX_NODES} parts"))?;
        match ty {
            ComponentValType::Primitive(primitive) => Self::primitive(*primitive),
            ComponentValType::Type(id) => {
                if self.depth == MAX_DEPTH {
                    return Err(format!("of a type that is nested deeper than {MAX_DEPTH}"));
                }
                self.depth += 1;
                let shape = self.defined(*id);
                self.depth -= 1;
                shape
            }
        }
    }

    fn optional(&mut self, ty: &Option<ComponentValType>) -> Result<Option<Shape>, String> {
        ty.as_ref().map(|ty| self.value(ty)).transpose()
    }

    fn defined(&mut self, id: ComponentDefinedTypeId) -> Result<Shape, String> {
        let types = self.types;
        match &types[id] {
            ComponentDefinedType::Primitive(primitive) => Self::primitive(*primitive),
            ComponentDefinedType::Record(record) => {
                let mut fields = Vec::new();
                for (name, ty) in &record.fields {
                    fields.push(Field { name: name.to_string(), shape: self.value(ty)? });
                }
                Ok(Shape::Record(fields))
            }
            ComponentDefinedType::Variant(variant) => {
                let mut cases = Vec::new();
                for (name, case) in &variant.cases {
                    self.name()?;
                    let payload = self.optional(&case.ty)?;
                    cases.push(Case { name: name.to_string(), payload });
                }
                Ok(Shape::Variant(cases))
            }
            ComponentDefinedType::List { element, .. } => Ok(match self.value(element)? {
                Shape::Integer(Width::U8) => Shape::Bytes,
                shape => Shape::List(Box::new(shape)),
            }),
            ComponentDefinedType::Tuple(tuple) => {
                let shapes: Result<Vec<Shape>, String> =
                    tuple.types.iter().map(|ty| self.value(ty)).collect();
                Ok(Shape::Tuple(shapes?))
            }
            ComponentDefinedType::Flags(names) => {
                let names: Result<_, String> =
                    names.iter().map(|n| self.name().map(|()| n.to_string())).collect();
                Ok(Shape::Flags(names?))
            }
            ComponentDefinedType::Enum(names) => {
                let names: Result<_, String> =
                    names.iter().map(|n| self.name().map(|()| n.to_string())).collect();
                Ok(Shape::Enum(names?))
            }
            ComponentDefinedType::Option { ty, .. } => Ok(Shape::Option(Box::new(self.value(ty)?))),
            ComponentDefinedType::Result { ok, err, .. } => Ok(Shape::Result {
                ok: self.optional(ok)?.map(Box::new),
                err: self.optional(err)?.map(Box::new),
            }),
            ComponentDefinedType::Own(_) | ComponentDefinedType::Borrow(_) => {
                Err("a handle to a resource, which has no form in JSON".into())
            }
            ComponentDefinedType::Future { .. } => {
                Err("a future, which has no form in JSON".into())
            }
            ComponentDefinedType::Stream { .. } => {
                Err("a stream, which has no form in JSON".into())
            }
            ComponentDefinedType::Map { .. } => Err("a map, which is not taken here yet".into()),
            ComponentDefinedType::FixedLengthList { .. } => {
                Err("a list of fixed length, which is not taken here yet".into())
            }
        }
    }

    /// Names cost as much as types: there may be very many in one type.
    fn name(&mut self) -> Result<(), String> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| format!("of a type with more than {MAX_NODES} parts"))?;
        Ok(())
    }

    fn primitive(primitive: PrimitiveValType) -> Result<Shape, String> {
        Ok(match primitive {
            PrimitiveValType::Bool => Shape::Bool,
            PrimitiveValType::S8 => Shape::Integer(Width::S8),
            PrimitiveValType::U8 => Shape::Integer(Width::U8),
            PrimitiveValType::S16 => Shape::Integer(Width::S16),
            PrimitiveValType::U16 => Shape::Integer(Width::U16),
            PrimitiveValType::S32 => Shape::Integer(Width::S32),
            PrimitiveValType::U32 => Shape::Integer(Width::U32),
            PrimitiveValType::S64 => Shape::Integer(Width::S64),
            PrimitiveValType::U64 => Shape::Integer(Width::U64),
            PrimitiveValType::F32 => Shape::F32,
            PrimitiveValType::F64 => Shape::F64,
            PrimitiveValType::Char => Shape::Char,
            PrimitiveValType::String => Shape::Text,
            PrimitiveValType::ErrorContext => {
                return Err("an error context, which has no form in JSON".into());
            }
        })
    }
}
