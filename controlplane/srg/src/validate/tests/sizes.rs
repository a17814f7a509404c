//! The rules about sizes: of tensors, of totals, of the graph itself.

use super::*;
use crate::{SourceLocation, node::Kind};

#[test]
fn negative_numbers() {
    let dim = after(|g| g.edges[0].dims[1] = -3);
    assert!(matches!(
        dim,
        SrgError::NegativeDim {
            dim: 1,
            size: -3,
            ..
        }
    ));
    let stride = after(|g| layout(g).strides[0] = -1);
    assert!(matches!(
        stride,
        SrgError::Negative {
            field: "stride",
            ..
        }
    ));
    let offset = after(|g| layout(g).storage_offset = i64::MIN);
    assert!(matches!(
        offset,
        SrgError::Negative {
            field: "storage offset",
            ..
        }
    ));
}

#[test]
fn sizes_that_overflow() {
    let shaped = |dims: &[i64], dtype| {
        let edge = Edge::tensor((1, 0), (2, 0), dtype, dims);
        after(|g| g.edges[0] = edge)
    };
    // 2^63 bytes, then 2^63 elements; a 0 anywhere hides neither.
    for dims in [
        &[1 << 31, 1 << 30][..],
        &[1 << 62, 2],
        &[0, 1 << 62, 4],
        &[1 << 62, 4, 0],
    ] {
        let error = shaped(dims, Dtype::Float);
        assert!(
            matches!(
                error,
                SrgError::SizeOverflow {
                    what: "the tensor's size in bytes",
                    ..
                }
            ),
            "{dims:?}"
        );
    }
    let end = |change: fn(&mut Layout)| {
        let error = after(|g| {
            layout(g).contiguous = false;
            change(layout(g));
        });
        assert!(matches!(
            error,
            SrgError::SizeOverflow {
                what: "the end of the tensor in its storage",
                ..
            }
        ));
    };
    end(|layout| layout.strides[0] = i64::MAX);
    end(|layout| layout.strides[0] = i64::MAX / 4);
    // Four times this is 2^64, which would wrap to 0.
    end(|layout| layout.strides[3] = 1 << 62);
    end(|layout| layout.storage_offset = i64::MAX);
    end(|layout| layout.storage_offset = i64::MAX / 4);
}

#[test]
fn end_one_past_the_largest_is_refused() {
    let with_offset = |storage_offset| {
        let mut srg = graph();
        srg.edges[0] = Edge::tensor((1, 0), (2, 0), Dtype::Byte, &[])
            .with_layout(Layout::strided(vec![], storage_offset));
        validate(&srg).is_ok()
    };
    assert!(with_offset(i64::MAX - 1));
    assert!(!with_offset(i64::MAX));
}

#[test]
fn empty_tensors_add_nothing_to_the_total() {
    let mut srg = graph();
    for input in 1..4 {
        srg.edges.push(Edge::tensor(
            (1, 0),
            (3, input),
            Dtype::Byte,
            &[i64::MAX, 0],
        ));
    }
    assert!(validate(&srg).is_ok());
}

#[test]
fn largest_sizes_are_accepted() {
    let mut srg = graph();
    srg.edges[0] = Edge::tensor((1, 0), (2, 0), Dtype::Byte, &[i64::MAX]);
    srg.edges[1] = Edge::tensor((2, 0), (3, 0), Dtype::Byte, &[1 << 31, 1 << 31]);
    assert!(validate(&srg).is_ok());
    srg.edges[1].dims[1] = 0;
    assert!(validate(&srg).is_ok());
}

#[test]
fn totals_that_overflow() {
    let cost = |flops, bytes_read, bytes_written| {
        Some(crate::Cost {
            flops,
            bytes_read,
            bytes_written,
            intensity: 0.0,
        })
    };
    let error = after(|g| {
        g.nodes[0].cost = cost(u64::MAX, 0, 0);
        g.nodes[1].cost = cost(1, 0, 0);
    });
    assert_eq!(error, SrgError::TotalOverflow { what: "FLOPs" });
    let error = after(|g| g.nodes[0].cost = cost(0, u64::MAX, 1));
    assert_eq!(
        error,
        SrgError::TotalOverflow {
            what: "bytes read and written"
        }
    );
    let error = after(|g| {
        for (input, &size) in [i64::MAX, i64::MAX, 2].iter().enumerate() {
            let input = u32::try_from(input).expect("small") + 1;
            g.edges
                .push(Edge::tensor((1, 0), (3, input), Dtype::Byte, &[size]));
        }
    });
    assert_eq!(
        error,
        SrgError::TotalOverflow {
            what: "tensor bytes"
        }
    );
}

#[test]
fn strides_and_flags() {
    assert!(matches!(
        after(|g| layout(g).strides.truncate(3)),
        SrgError::StrideCount {
            dims: 4,
            strides: 3,
            ..
        }
    ));
    let contiguous = after(|g| layout(g).strides[0] += 1);
    assert!(matches!(
        contiguous,
        SrgError::LayoutContradiction {
            flag: "contiguous",
            ..
        }
    ));
    let channels_last = after(|g| layout(g).channels_last = true);
    assert!(matches!(
        channels_last,
        SrgError::LayoutContradiction {
            flag: "channels_last",
            ..
        }
    ));
}

#[test]
fn flags_that_hold_are_accepted() {
    let accepted = |dims: &[i64], strides: &[i64], contiguous, channels_last| {
        let mut srg = graph();
        let layout = Layout::strided(strides.to_vec(), 0);
        srg.edges[0].dims = dims.to_vec();
        srg.edges[0].layout = Some(Layout {
            contiguous,
            channels_last,
            ..layout
        });
        validate(&srg).is_ok()
    };
    assert!(accepted(&[2, 3, 4, 5], &[60, 1, 15, 3], false, true));
    assert!(accepted(
        &[2, 3, 4, 5, 6],
        &[360, 1, 90, 18, 3],
        false,
        true
    ));
    assert!(!accepted(&[3, 4, 5], &[1, 15, 3], false, true));
    // The stride of a dimension of size 1 says nothing; a channel alone is in both orders.
    assert!(accepted(&[1, 3], &[999, 1], true, false));
    assert!(accepted(&[2, 1, 4, 5], &[20, 7, 5, 1], true, true));
    assert!(accepted(&[2, 0], &[5, 5], true, false));
}

#[test]
fn counts() {
    let refused = |what, error| {
        assert!(
            matches!(&error, SrgError::TooMany { what: named, .. } if *named == what),
            "{error}"
        );
    };
    refused(
        "nodes",
        after(|g| g.nodes.resize(limits::MAX_NODES + 1, Node::default())),
    );
    refused(
        "edges",
        after(|g| g.edges.resize(limits::MAX_EDGES + 1, Edge::default())),
    );
    refused(
        "dimensions",
        after(|g| g.edges[0].dims = vec![1; limits::MAX_DIMS + 1]),
    );
    let many = vec!["aten::relu"; limits::MAX_FUSED_OPERATORS + 1];
    refused(
        "fused operators",
        after(|g| g.nodes[2].kind = Node::fused(3, many).kind),
    );
    let many: BTreeMap<_, _> = (0..=limits::MAX_ANNOTATIONS)
        .map(|key| (key.to_string(), String::new()))
        .collect();
    refused("annotations", after(|g| g.annotations = many.clone()));
    refused(
        "annotations",
        after(|g| g.nodes[0].annotations = many.clone()),
    );
}

#[test]
fn lengths() {
    let refused = |what, change: &dyn Fn(&mut Srg)| {
        let error = after(change);
        assert!(
            matches!(&error, SrgError::TooMany { what: named, .. } if *named == what),
            "{error}"
        );
    };
    let name = "a::".to_owned() + &"a".repeat(limits::MAX_NAME_BYTES);
    let path = "a".repeat(limits::MAX_PATH_BYTES + 1);
    let value = "a".repeat(limits::MAX_ANNOTATION_BYTES + 1);
    let call = vec![0; limits::MAX_CALL_BYTES + 1];
    let source = |file: &str, function: &str| {
        let source = SourceLocation {
            file: file.into(),
            line: 1,
            function: function.into(),
        };
        Some(Lineage {
            source: Some(source),
            ..Lineage::default()
        })
    };

    refused("bytes of operator name", &|g| {
        g.nodes[1].kind = Node::operator(2, &name).kind
    });
    refused("bytes of operator name", &|g| {
        g.nodes[2].kind = Node::fused(3, [&name]).kind
    });
    refused("bytes of name", &|g| {
        g.nodes[0].kind = Node::input(1, &name).kind
    });
    refused("bytes of semantic role", &|g| {
        g.nodes[0].semantic_role = name.clone()
    });
    refused("bytes of module path", &|g| {
        g.nodes[0].module_path = name.clone()
    });
    refused("bytes of colocation group", &|g| {
        g.nodes[0].colocation_group = name.clone()
    });
    refused("bytes of source file", &|g| {
        g.nodes[0].lineage = source(&path, "")
    });
    refused("bytes of source function", &|g| {
        g.nodes[0].lineage = source("", &name)
    });
    for node in [1, 2] {
        refused("bytes of call", &|g| {
            g.nodes[node] = g.nodes[node].clone().with_call(call.clone(), [])
        });
        refused("bytes of parameters", &|g| {
            g.nodes[node] = g.nodes[node].clone().with_call([], call.clone());
        });
    }
    refused("bytes of an annotation's key", &|g| {
        drop(g.annotations.insert(name.clone(), String::new()))
    });
    refused("bytes of an annotation", &|g| {
        drop(g.annotations.insert(String::new(), value.clone()))
    });
}

#[test]
fn bytes_altogether() {
    let error = after(|g| {
        let Some(Kind::Operator(operator)) = &mut g.nodes[1].kind else {
            panic!("not an operator")
        };
        operator.call = vec![0; limits::MAX_CALL_BYTES];
        let large = g.nodes[1].clone();
        g.nodes.extend((10..600).map(|id| Node {
            id,
            ..large.clone()
        }));
    });
    assert!(matches!(
        error,
        SrgError::TooManyBytes {
            encoding: Encoding::Protobuf,
            ..
        }
    ));
}
