use super::*;

#[test]
fn every_tensor_of_a_fixture_is_read_as_stored() {
    let folder = Folder::tiny();
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    let file = &folder.0.iter().find(|(n, _)| n == "model.safetensors").unwrap().1;
    let reference = ::safetensors::SafeTensors::deserialize(file).unwrap();
    assert_eq!(checkpoint.tensors().len(), reference.len());
    for spec in checkpoint.tensors() {
        let view = reference.tensor(&spec.name).unwrap();
        assert_eq!(view.shape(), spec.shape);
        let mut values = vec![0.0; view.data().len() / 4];
        format::decode_f32(view.data(), &mut values);
        match spec.shape[..] {
            [n, k] => {
                let matrix = read_matrix(&checkpoint, &spec.name, n, k, WeightFormat::F32).unwrap();
                assert_eq!(decode(&matrix, k, WeightFormat::F32), values, "{}", spec.name);
                let sd = rms(values.iter().copied());
                for (format, tolerance) in
                    [(WeightFormat::F16, 5e-4), (WeightFormat::Q8, 0.01), (WeightFormat::Q4, 0.11)]
                {
                    let matrix = read_matrix(&checkpoint, &spec.name, n, k, format).unwrap();
                    let error = rms(decode(&matrix, k, format).iter().zip(&values).map(|(a, b)| a - b));
                    assert!(error < tolerance * sd, "{} in {format}: {error} of {sd}", spec.name);
                }
            }
            _ => assert_eq!(block_on(checkpoint.vector(&spec.name, &spec.shape)).unwrap(), values),
        }
    }
}

#[test]
fn lying_headers_are_refused() {
    const FILE: &str = "model.safetensors";
    const Q: &str = "model.layers.0.mla.q_a_proj.weight";
    let spoilt = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut folder = Folder::tiny();
        edit(folder.bytes(FILE));
        folder.refusal()
    };
    let length = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_says(&spoilt(&|b| b.truncate(5)), &[FILE, "truncated", "has 5"]);
    assert_says(&spoilt(&|b| b.truncate(100)), &[FILE, "the header claims", "the file has 100"]);
    assert_says(&spoilt(&|b| b.truncate(b.len() - 1)), &[FILE, "truncated"]);
    assert_says(&spoilt(&|b| b.push(0)), &[FILE, "belong to no tensor"]);
    assert_says(&spoilt(&|b| b[..8].copy_from_slice(&u64::MAX.to_le_bytes())), &[FILE, "the header claims"]);
    let shorter = |b: &mut Vec<u8>| {
        let n = length(b) - 16; // beyond the padding of spaces
        b[..8].copy_from_slice(&n.to_le_bytes());
    };
    assert_says(&spoilt(&shorter), &[FILE, "header:"]);
    assert_says(&spoilt(&|b| b[..4].copy_from_slice(b"GGUF")), &[FILE, "GGUF"]);
    assert_says(&spoilt(&|b| b[8] = 0xff), &[FILE, "header:"]);

    let lying = |edit: &dyn Fn(&mut Value)| {
        let mut folder = Folder::tiny();
        folder.header(FILE, edit);
        folder.refusal()
    };
    let offsets = |header: &Value| {
        header[Q]["data_offsets"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_says(&lying(&|h| h[Q]["shape"] = json!([24, 65])), &[Q, "[24, 65]", "does not take"]);
    assert_says(&lying(&|h| h[Q]["shape"] = json!([u64::MAX, 2])), &[Q, "does not take"]);
    assert_says(&lying(&|h| h[Q]["dtype"] = "F99".into()), &[FILE, "F99"]);
    assert_says(&lying(&|h| h[Q]["data_offsets"] = json!([8, 0])), &[Q, "does not take"]);
    assert_says(&lying(&|h| h[Q]["data_offsets"] = json!([-4, 0])), &[FILE, "header:"]);
    let shift = |h: &mut Value, by: i64| {
        let o = offsets(h);
        h[Q]["data_offsets"] = json!([o[0] as i64 + by, o[1] as i64 + by]);
    };
    assert_says(&lying(&|h| shift(h, -4)), &["overlaps"]);
    assert_says(&lying(&|h| shift(h, 4)), &[Q, "gap"]);
    assert_says(&lying(&|h| shift(h, 1 << 40)), &["gap"]);
    let huge = |h: &mut Value| h[Q]["data_offsets"] = json!([u64::MAX - 24 * 64 * 4, u64::MAX]);
    assert_says(&lying(&huge), &["gap"]);

    let mut folder = Folder::tiny();
    let entry = r#""a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    *folder.bytes(FILE) = with_header(&format!("{{{entry},{entry}}}"), &[0]);
    assert_says(&folder.refusal(), &["\"a\" is named twice"]);
}

#[test]
fn wrong_tensors_are_refused() {
    const Q: &str = "model.layers.0.mla.q_a_proj.weight";
    const UP: &str = "model.layers.2.mlp.up_proj.weight";
    let edited = |edit: fn(&mut Tensors)| {
        let mut folder = Folder::tiny();
        folder.tensors(edit);
        folder.refusal()
    };
    assert_says(&edited(|list| list.retain(|t| t.0 != UP)), &[UP, "[96, 64]", "no such tensor"]);
    assert_says(&edited(|list| list.retain(|t| t.0 != Q)), &[Q, "q rank", "no such tensor"]);
    let reshape = |list: &mut Tensors| {
        list.iter_mut().find(|t| t.0 == UP).unwrap().2 = vec![64, 96];
    };
    assert_says(&edited(reshape), &[UP, "[96, 64]", "[64, 96]"]);
    let deepen = |list: &mut Tensors| {
        list.iter_mut().find(|t| t.0 == UP).unwrap().2 = vec![96, 64, 1];
    };
    assert_says(&edited(deepen), &[UP, "[96, 64]", "[96, 64, 1]"]);
    let retype = |list: &mut Tensors| {
        list.iter_mut().find(|t| t.0 == UP).unwrap().1 = Dtype::I32;
    };
    assert_says(&edited(retype), &[UP, "F32, BF16 or F16", "I32"]);
    let add = |list: &mut Tensors| {
        list.push(("model.layers.7.mlp.up_proj.weight".into(), Dtype::F32, vec![1], vec![0; 4]));
    };
    assert_says(&edited(add), &["model.layers.7.mlp.up_proj.weight", "5 layers"]);
    let kv = |list: &mut Tensors| {
        let tensor = list.iter_mut().find(|t| t.0 == "model.layers.0.mla.kv_b_proj.weight").unwrap();
        tensor.2 = vec![72, 16];
        tensor.3 = vec![0; 72 * 16 * 4];
    };
    assert_says(&edited(kv), &["kv_b_proj", "kv heads", "[72, 16]"]);
}

#[test]
fn shards_must_be_what_the_index_says() {
    const INDEX: &str = "model.safetensors.index.json";
    let mut folder = Folder::load("models/zebra-pocket");
    folder.remove("model-00002-of-00003.safetensors");
    assert_says(&folder.refusal(), &["model-00002-of-00003.safetensors", "no such file", INDEX]);

    let mut folder = Folder::load("models/zebra-pocket");
    folder.bytes("model-00002-of-00003.safetensors").truncate(1_000_000);
    assert_says(&folder.refusal(), &["model-00002-of-00003.safetensors", "truncated"]);

    let mut folder = Folder::load("models/zebra-pocket");
    let (first, third) = ("model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors");
    folder.json(INDEX, |index| index["weight_map"]["model.embed_tokens.weight"] = third.into());
    assert_says(&folder.refusal(), &["model.embed_tokens.weight", third, first]);
    folder.json(INDEX, |index| index["weight_map"]["model.embed_tokens.weight"] = "../other.safetensors".into());
    assert_says(&folder.refusal(), &[INDEX, "../other.safetensors"]);
    folder.json(INDEX, |index| index["weight_map"] = 3.into());
    assert_says(&folder.refusal(), &[INDEX, "weight_map"]);

    let mut folder = Folder::load("models/zebra-pocket");
    let copy = folder.bytes(third).clone();
    folder.0.push(("copy.safetensors".into(), copy));
    folder.json(INDEX, |index| index["weight_map"]["another"] = "copy.safetensors".into());
    assert_says(&folder.refusal(), &["is stored twice"]);
}

#[test]
fn values_that_are_not_finite_are_refused_with_their_place() {
    let mut folder = Folder::tiny();
    folder.tensors(|list| {
        for (name, _, _, data) in list {
            match name.as_str() {
                "lm_head.weight" => data[4 * (3 * 64 + 5)..][..4].copy_from_slice(&f32::NAN.to_le_bytes()),
                "model.norm.weight" => data[4 * 7..][..4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes()),
                "model.embed_tokens.weight" => data[..4].copy_from_slice(&1e6f32.to_le_bytes()),
                _ => {}
            }
        }
    });
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    let refused = |name: &str, format| match read_matrix(&checkpoint, name, 97, 64, format) {
        Ok(_) => panic!("{name} was read in {format}"),
        Err(error) => error.to_string(),
    };
    for format in WeightFormat::ALL {
        assert_says(&refused("lm_head.weight", format), &["lm_head.weight", "finite", "NaN at [3, 5]"]);
    }
    assert_says(&refused("model.embed_tokens.weight", WeightFormat::F16), &["f16 can hold", "1000000 at [0, 0]"]);
    assert!(read_matrix(&checkpoint, "model.embed_tokens.weight", 97, 64, WeightFormat::Q8).is_ok());
    let error = block_on(checkpoint.vector("model.norm.weight", &[64])).unwrap_err().to_string();
    assert_says(&error, &["model.norm.weight", "finite", "-inf at [7]"]);
    let error = block_on(checkpoint.vector("model.norm.weight", &[65])).unwrap_err().to_string();
    assert_says(&error, &["model.norm.weight", "[65]", "[64]"]);
}

#[test]
fn a_large_matrix_comes_in_chunks() {
    // 97 rows become 40,000 in one tensor of 10 MB: more than a chunk.
    let mut folder = Folder::tiny();
    folder.json("config.json", |c| c["vocab_size"] = 40_000.into());
    folder.tensors(|list| {
        for (name, _, shape, data) in list {
            if name == "lm_head.weight" || name == "model.embed_tokens.weight" {
                *shape = vec![40_000, 64];
                *data = (0..40_000 * 64).flat_map(|i| weight(i).to_le_bytes()).collect();
            }
        }
    });
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    let matrix = read_matrix(&checkpoint, "lm_head.weight", 40_000, 64, WeightFormat::F32).unwrap();
    assert_eq!(matrix.chunks, 2);
    assert!(decode(&matrix, 64, WeightFormat::F32).into_iter().enumerate().all(|(i, w)| w == weight(i)));
}

#[test]
fn shards_are_cut_and_indexed() {
    let folder = Folder::tiny();
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    // Limits below a header's room put every tensor into a shard of its own.
    for (limit, count) in [(u64::MAX, 1), (0, checkpoint.tensors().len()), ((1 << 20) + 300_000, 3)] {
        let layout = ShardLayout::new(checkpoint.tensors(), Storage::Plain(Dtype::F32), limit);
        assert_eq!(layout.shards().len(), count, "limit {limit}");
        let mut written = Written::default();
        block_on(layout.write_heads(&mut written)).unwrap();
        for spec in checkpoint.tensors() {
            let place = layout.place(&spec.name).unwrap();
            assert_eq!((place.bytes, place.offset % 4), (spec.elements() * 4, 0));
            block_on(written.write(place.file, place.offset, &vec![0; place.bytes as usize])).unwrap();
        }
        let others = folder.0.iter().filter(|(name, _)| name.ends_with("config.json")).cloned();
        let copy = Folder(written.0.into_iter().chain(others).collect());
        assert_eq!(copy.config(), *checkpoint.config());
        let bytes: usize = copy.0.iter().filter(|(n, _)| n.ends_with(".safetensors")).map(|(_, b)| b.len()).sum();
        assert_eq!(bytes as u64, layout.bytes());
    }
}
