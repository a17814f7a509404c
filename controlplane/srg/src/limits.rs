//! How large a graph may be. A writer that needs more cuts its segment; a reader refuses what is larger
//! before it spends memory on it.

/// A graph in protobuf. Decoding what was made to hurt takes about 24 times the memory of its bytes.
pub const MAX_PROTOBUF_BYTES: usize = 32 << 20;
/// A graph in JSON, for people and tools. The same graph takes several times the bytes of protobuf, so the
/// largest graphs have no JSON.
pub const MAX_JSON_BYTES: usize = 32 << 20;
/// Nodes of a graph.
pub const MAX_NODES: usize = 1 << 16;
/// Edges of a graph.
pub const MAX_EDGES: usize = 1 << 18;
/// Dimensions of a tensor; PyTorch's own kernels stop at 64.
pub const MAX_DIMS: usize = 64;
/// Tensor arguments of a node, and its outputs, lists flattened.
pub const MAX_PORTS: u32 = 1 << 16;
/// Operators of one fused subgraph.
pub const MAX_FUSED_OPERATORS: usize = 1 << 12;
/// A name: operator, input, semantic role, module path, colocation group, function, annotation key.
pub const MAX_NAME_BYTES: usize = 1 << 10;
/// The path of a source file.
pub const MAX_PATH_BYTES: usize = 1 << 12;
/// A node's `call`, and its `parameters`.
pub const MAX_CALL_BYTES: usize = 1 << 16;
/// Annotations of a graph, and of each node.
pub const MAX_ANNOTATIONS: usize = 64;
/// The value of an annotation.
pub const MAX_ANNOTATION_BYTES: usize = 1 << 12;
