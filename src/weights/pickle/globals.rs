//! The names that a pickle may use, and their meaning for this machine.

use super::super::elements::{NamedDType, StoredDType, UNREAD};

/// The meaning of a name in a pickle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum Global {
    /// `OrderedDict` and other mappings.
    Dict,
    /// `torch.Size`, sets, lists.
    Sequence,
    /// `None` for an untyped storage.
    Storage(Option<NamedDType>),
    Dtype(NamedDType),
    /// `_rebuild_tensor` and its successors.
    Tensor,
    /// `_rebuild_parameter`, and other functions that wrap a tensor as their first argument.
    Wrapper,
    /// `_rebuild_from_type_v2`: another function's tensor with attributes.
    FromType,
    /// A tensor class; old files call it without arguments and set the data afterwards.
    TensorClass,
    /// A function whose tensors are not read, for this reason.
    NotRead(&'static str),
    /// Any other name, as an index of the pickle's list of names. Objects made with it are inert.
    Unknown(u32),
}

/// Returns the meaning of a name; `None` when it is unknown.
pub(super) fn lookup(module: &str, name: &str) -> Option<Global> {
    let builtin = matches!(module, "builtins" | "__builtin__");
    Some(match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Dict,
        (_, "dict") if builtin => Global::Dict,
        (_, "set" | "frozenset" | "list" | "tuple") if builtin => Global::Sequence,
        ("torch", "Size") => Global::Sequence,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => Global::Tensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state" | "_rebuild_device_tensor_from_cpu_tensor") => {
            Global::Wrapper
        }
        ("torch._tensor" | "torch.tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => Global::FromType,
        ("torch._utils", "_rebuild_qtensor") => Global::NotRead("is quantized; save it after `.dequantize()`"),
        ("torch._utils", "_rebuild_sparse_tensor") => Global::NotRead("is sparse; save it after `.to_dense()`"),
        ("torch._utils", "_rebuild_nested_tensor") | ("torch.nested._internal.nested_tensor", "_rebuild_njt") => {
            Global::NotRead("is nested; save it after `.to_padded_tensor()`")
        }
        ("torch._utils", "_rebuild_meta_tensor_no_storage") => Global::NotRead("is on the meta device and has no values"),
        ("torch._utils", "_rebuild_wrapper_subclass") => {
            Global::NotRead("is of a tensor subclass without elements in the file; save it as a plain tensor")
        }
        ("torch._utils", "_rebuild_device_tensor_from_numpy" | "_rebuild_xla_tensor") => {
            Global::NotRead("is of another device and stored as a NumPy array; save it after `.cpu()`")
        }
        ("torch.nn.parameter" | "torch.nn", "Parameter" | "Buffer") | ("torch" | "torch._tensor" | "torch.tensor", "Tensor") => {
            Global::TensorClass
        }
        ("torch.storage" | "torch", "UntypedStorage") => Global::Storage(None),
        ("torch" | "torch.cuda", name) => match (storage_kind(name), dtype_kind(name)) {
            (Some(kind), _) => Global::Storage(Some(kind)),
            (None, Some(kind)) => Global::Dtype(kind),
            _ if name.ends_with("Tensor") => Global::TensorClass,
            _ => return None,
        },
        _ => return None,
    })
}

fn storage_kind(name: &str) -> Option<NamedDType> {
    Some(Ok(match name.strip_suffix("Storage")? {
        "Half" => StoredDType::F16,
        "BFloat16" => StoredDType::Bf16,
        "Float" => StoredDType::F32,
        "Double" => StoredDType::F64,
        "Char" => StoredDType::I8,
        "Short" => StoredDType::I16,
        "Int" => StoredDType::I32,
        "Long" => StoredDType::I64,
        "Byte" => StoredDType::U8,
        "Bool" => StoredDType::Bool,
        other => return UNREAD.iter().find(|unread| !other.is_empty() && unread.storage == other).map(Err),
    }))
}

fn dtype_kind(name: &str) -> Option<NamedDType> {
    Some(Ok(match name {
        "float16" | "half" => StoredDType::F16,
        "bfloat16" => StoredDType::Bf16,
        "float32" | "float" => StoredDType::F32,
        "float64" | "double" => StoredDType::F64,
        "int8" => StoredDType::I8,
        "int16" => StoredDType::I16,
        "int32" => StoredDType::I32,
        "int64" => StoredDType::I64,
        "uint8" => StoredDType::U8,
        "uint16" => StoredDType::U16,
        "uint32" => StoredDType::U32,
        "bool" => StoredDType::Bool,
        other => return UNREAD.iter().find(|unread| unread.name == other).map(Err),
    }))
}
