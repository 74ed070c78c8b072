use super::*;

#[test]
fn quantized_folders_hold_what_quantizing_at_load_gives() {
    for (path, presets) in
        [("tests/fixtures/tiny-lnorm", Preset::ALL.as_slice()), ("models/zebra-pocket", &[Preset::Q4])]
    {
        let plain = Folder::load(path);
        let plain_files = plain.memory();
        let from_plain = block_on(Checkpoint::open(&plain_files)).unwrap();
        for &preset in presets {
            let folder = quantized(&plain, preset);
            let files = folder.memory();
            let stored = block_on(Checkpoint::open(&files)).unwrap();
            assert_eq!((stored.stored(), stored.config()), (Some(preset), from_plain.config()));
            assert_eq!(stored.parameters(), from_plain.parameters());
            assert_eq!(stored.preset(None, Preset::F32).unwrap(), preset);
            for spec in stored.tensors() {
                if let [n, k] = spec.shape[..] {
                    let format = preset.format_of(&spec.name);
                    let a = read_matrix(&stored, &spec.name, n, k, format).unwrap();
                    let b = read_matrix(&from_plain, &spec.name, n, k, format).unwrap();
                    assert!(a.words == b.words && a.scales == b.scales, "{} in {preset}", spec.name);
                } else {
                    let a = block_on(stored.vector(&spec.name, &spec.shape)).unwrap();
                    assert_eq!(a, block_on(from_plain.vector(&spec.name, &spec.shape)).unwrap());
                }
            }
            // The safetensors crate, which checks what any tool would, reads the file too.
            let bytes = &folder.0.iter().find(|(name, _)| name == "model.safetensors").unwrap().1;
            let parsed = ::safetensors::SafeTensors::deserialize(bytes).unwrap();
            let (_, metadata) = ::safetensors::SafeTensors::read_metadata(bytes).unwrap();
            let metadata = metadata.metadata().as_ref().unwrap();
            assert_eq!((metadata["format"].as_str(), metadata["zebra.version"].as_str()), ("pt", "1"));
            assert_eq!(metadata["zebra.preset"], preset.name());
            let tensors: Value = serde_json::from_str(&metadata["zebra.tensors"]).unwrap();
            if path.ends_with("tiny-lnorm") && preset == Preset::Q4 {
                assert_eq!(tensors["lm_head.weight"], json!({"format": "q8", "shape": [97, 64]}));
                assert_eq!(tensors["model.layers.0.mla.out_proj.weight"]["format"], "q4");
                let codes = parsed.tensor("model.layers.0.mla.q_b_proj.weight").unwrap();
                assert_eq!((codes.dtype(), codes.shape()), (Dtype::I8, [64, 32].as_slice()));
                let codes = parsed.tensor("model.layers.0.mlp.down_proj.weight").unwrap();
                assert_eq!((codes.dtype(), codes.shape()), (Dtype::U8, [64, 48].as_slice()));
                let scales = parsed.tensor("model.layers.0.mlp.down_proj.weight_scale").unwrap();
                assert_eq!((scales.dtype(), scales.shape()), (Dtype::F16, [64, 3].as_slice()));
                let conv = parsed.tensor("model.layers.1.mamba.conv1d.weight").unwrap();
                assert_eq!((conv.dtype(), conv.shape()), (Dtype::F32, [128, 1, 4].as_slice()));
            }
        }
    }
}

#[test]
fn quantized_folders_run_in_their_format_only() {
    let q4 = quantized(&Folder::tiny(), Preset::Q4);
    let files = q4.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    assert_says(&checkpoint.preset(Some(Preset::Q8), Preset::Q8).unwrap_err().to_string(), &["format", "q4", "q8"]);
    let Err(error) = read_matrix(&checkpoint, "lm_head.weight", 97, 64, WeightFormat::F16) else {
        panic!("q8 codes were read as f16")
    };
    assert!(matches!(error, Error::Option { .. }));
    assert_says(&error.to_string(), &["format", "q8", "lm_head.weight", "f16"]);
    assert!(block_on(quantize(&files, Preset::Q8, &mut Written::default(), &mut |_, _| {})).is_err());

    // f16 loses nothing that matters: it may be quantized further.
    let f16 = quantized(&Folder::tiny(), Preset::F16);
    assert_eq!(quantized(&f16, Preset::Q8).config(), q4.config());
}

#[test]
fn spoilt_quantized_folders_are_refused() {
    const FILE: &str = "model.safetensors";
    const UP: &str = "model.layers.2.mlp.up_proj.weight";
    let q4 = quantized(&Folder::tiny(), Preset::Q4);

    let mut folder = q4.clone();
    let files = folder.memory();
    let layout_of = block_on(Checkpoint::open(&files)).unwrap();
    let layout = ShardLayout::new(layout_of.tensors(), Storage::Preset(Preset::Q4), ShardLayout::SHARD_BYTES);
    let place = layout.place(&scale_name(UP)).unwrap();
    // Row 5, group 1 of 2.
    folder.bytes(FILE)[place.offset as usize + 2 * (5 * 2 + 1)..][..2].copy_from_slice(&[0x00, 0x7c]);
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    let Err(error) = read_matrix(&checkpoint, UP, 96, 64, WeightFormat::Q4) else {
        panic!("an infinite scale was read")
    };
    assert_says(&error.to_string(), &["up_proj.weight_scale", "inf at [5, 1]"]);

    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut folder = q4.clone();
        folder.header(FILE, |header| edit(&mut header["__metadata__"]));
        folder.refusal()
    };
    assert_says(&edited(&|m| m["zebra.version"] = "2".into()), &["zebra.version", "\"2\"", "\"1\""]);
    assert_says(&edited(&|m| m["zebra.preset"] = "q3".into()), &["zebra.preset", "q3"]);
    assert_says(&edited(&|m| m["zebra.preset"] = "q8".into()), &["q8 in a folder of preset q8", "q4"]);
    assert_says(&edited(&|m| m["zebra.tensors"] = "[".into()), &["zebra.tensors"]);
    let unlisted = edited(&|m| m["zebra.tensors"] = "{}".into());
    assert_says(&unlisted, &["tensor"]);
    let other_shape = |m: &mut Value| {
        m["zebra.tensors"] = json!({UP: {"format": "q4", "shape": [96, 96]}}).to_string().into();
    };
    assert_says(&edited(&other_shape), &[UP, "U8 [96, 48]", "U8 [96, 32]"]);
    let missing = edited(&|m| {
        m.as_object_mut().unwrap().remove("zebra.version");
    });
    assert_says(&missing, &["zebra.version", "zebra.preset"]);
}
