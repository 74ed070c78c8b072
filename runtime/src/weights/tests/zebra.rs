use super::*;

#[test]
fn fixtures_open() {
    for (name, kv_heads, normed) in [("tiny-gqa", 2, false), ("tiny-mha", 4, false), ("tiny-lnorm", 2, true)] {
        let config = Folder::fixture(name).config();
        assert_eq!(
            (config.hidden_size, config.layers[0].mlp.intermediate_size, config.vocab_size),
            (64, 96, 97),
            "{name}"
        );
        assert_eq!(config.layers.len(), 5);
        assert!(!config.tied_head());
        for (n, layer) in config.layers.iter().enumerate() {
            match &layer.mixer.kind {
                MixerKind::Mla(c) => {
                    assert!(n == 0 || n == 3);
                    assert_eq!((c.heads, c.kv_heads, c.q_lora_rank, c.kv_lora_rank), (4, kv_heads, Some(24), 16));
                    assert_eq!((c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim), (8, 8, 16));
                    assert_eq!(c.lora_layer_norm, normed);
                    assert_eq!(c.rope.softmax_scale, 0.25);
                    assert_eq!(c.rope.attention_scale, 1.346_573_6);
                }
                MixerKind::Mamba2(c) => {
                    assert_eq!((c.heads, c.head_dim, c.d_inner, c.d_xb, c.d_conv), (4, 16, 64, 32, 4));
                    assert!(!c.repeat_kv_before_conv);
                    assert_eq!((c.in_proj_rows(), c.conv_channels()), (196, 128));
                }
                _ => panic!("no Zebra-Llama has it"),
            }
        }
        assert_eq!((config.eos_token_ids.as_slice(), config.bos_token_id), ([2].as_slice(), Some(1)));
    }
}

#[test]
fn pocket_opens() {
    let folder = Folder::load("models/zebra-pocket");
    let files = folder.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    let config = checkpoint.config();
    assert_eq!((config.hidden_size, config.layers.len(), config.vocab_size), (384, 8, 8192));
    assert!(config.tied_head());
    assert_eq!((config.base.layers, config.base.kv_heads, config.base.head_dim), (8, 2, 64));
    assert_eq!(config.eos_token_ids, [8187, 8191]);
    assert_eq!(checkpoint.stored(), None);
    assert_eq!(checkpoint.parameters(), 33_114_072 / 2);
    assert_eq!(checkpoint.preset(None, Preset::Q8).unwrap(), Preset::Q8);
}

#[test]
fn yarn_frequencies_are_those_of_the_released_models() {
    let mut folder = Folder::tiny();
    folder.json("hybrid_config.json", |h| h["rope_scaling"]["original_max_position_embeddings"] = 8192.into());
    // The 1B's rotated width of 32, without the tensors: only the two configurations and a few shapes are read.
    folder.json("hybrid_config.json", |h| h["qk_rope_head_dim"] = 32.into());
    let shape = |name: &str| match name.rsplit('.').nth(1).unwrap() {
        "q_a_proj" => Some(vec![24, 64]),
        "kv_b_proj" => Some(vec![48, 16]),
        "conv1d" => Some(vec![128, 1, 4]),
        _ => None,
    };
    let mut file = |name: &'static str| (name, folder.bytes(name).clone());
    let files = ConfigFiles::new([file(CONFIG_FILE), file(HYBRID_CONFIG_FILE)]);
    let config = ModelConfig::parse(Family::ZebraLlama, &files, &shape).unwrap();
    let MixerKind::Mla(mla) = &config.layers[0].mixer.kind else { panic!("layer 0 is MLA") };
    let expected = [
        1.0,
        0.440366626,
        0.193922758,
        0.0853971019,
        0.0376060307,
        0.0133518558,
        0.00446675764,
        0.00134479301,
        3.18197999e-4,
        1.94616387e-5,
        8.57025589e-6,
        3.77405445e-6,
        1.66196742e-6,
        7.31874934e-7,
        3.22293289e-7,
        1.41927202e-7,
    ];
    assert_eq!(mla.rope.inv_freq.len(), expected.len());
    for (found, expected) in mla.rope.inv_freq.iter().zip(expected) {
        assert!((f64::from(*found) / expected - 1.0).abs() < 2e-7, "{found} is not {expected}");
    }
    assert!((mla.rope.attention_scale - 1.346_573_6).abs() < 1e-6);
}

#[test]
fn both_schemas_give_the_same_rope() {
    let new = Folder::tiny();
    let mut old = new.clone();
    old.json("hybrid_config.json", |h| {
        h["rope_scaling"] = json!({"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64, "rope_type": "llama3"});
        h["use_fixed_rank_for_first_and_last_block"] = true.into();
        h["layer_rank_list"] = json!({"0": {"q_rank": 1, "kv_rank": 1}});
        h["q_energy_ratio"] = Value::Null;
    });
    assert_eq!(old.config(), new.config());

    let mut plain = new.clone();
    plain.json("hybrid_config.json", |h| h["rope_scaling"] = Value::Null);
    let MixerKind::Mla(mla) = &plain.config().layers[0].mixer.kind else { panic!("layer 0 is MLA") };
    assert_eq!((mla.rope.attention_scale, mla.rope.inv_freq[0]), (1.0, 1.0));
    assert!((f64::from(mla.rope.inv_freq[1]) - 5e5f64.powf(-0.25)).abs() < 1e-8);

    let mut linear = new.clone();
    linear.json("hybrid_config.json", |h| h["rope_scaling"]["rope_type"] = "linear".into());
    assert_says(&linear.refusal(), &["hybrid_config.json", "rope_scaling.rope_type", "yarn", "linear"]);
}

#[test]
fn one_matrix_for_q_and_repeat_before_conv_and_an_absent_head() {
    let mut folder = Folder::tiny();
    folder.tensors(|list| {
        list.retain(|(name, ..)| name != "lm_head.weight" && !name.contains("layers.0.mla.q_"));
        list.push(("model.layers.0.mla.q_proj.weight".into(), Dtype::F16, vec![64, 64], vec![0; 64 * 64 * 2]));
        for (name, dtype, shape, data) in list.iter_mut() {
            if name.starts_with("model.layers.1.mamba.conv1d") {
                shape[0] = 192;
                *dtype = Dtype::BF16;
                *data = vec![0; shape.iter().product::<usize>() * 2];
            }
        }
    });
    let config = folder.config();
    assert!(config.tied_head());
    let MixerKind::Mla(mla) = &config.layers[0].mixer.kind else { panic!("layer 0 is MLA") };
    assert_eq!(mla.q_lora_rank, None);
    let forms: Vec<bool> = config
        .layers
        .iter()
        .filter_map(|layer| match &layer.mixer.kind {
            MixerKind::Mamba2(c) => Some(c.repeat_kv_before_conv),
            _ => None,
        })
        .collect();
    assert_eq!(forms, [true, false, false]);

    folder.json("config.json", |c| c["tie_word_embeddings"] = false.into());
    assert_says(&folder.refusal(), &["lm_head.weight", "tie_word_embeddings", "no such tensor"]);
}

#[test]
fn wrong_configurations_are_refused() {
    let cases: [Case; 18] = [
        ("config.json", |c| c["hidden_act"] = "gelu".into(), &["config.json", "hidden_act", "silu", "gelu"]),
        ("hybrid_config.json", |c| c["hidden_act"] = "relu".into(), &["hybrid_config.json", "hidden_act", "relu"]),
        ("hybrid_config.json", |c| c["attention_bias"] = true.into(), &["attention_bias", "false", "true"]),
        (
            "hybrid_config.json",
            |c| c["linear_type"] = "gdn".into(),
            &["hybrid_config.json", "linear_type", "\"mamba2\"", "gdn"],
        ),
        (
            "hybrid_config.json",
            |c| c["mla_layers"] = json!([0]),
            &["hybrid_config.json", "mla_layers", "a list with 3, which has model.layers.3.mla.", "[0]"],
        ),
        ("hybrid_config.json", |c| c["mla_layers"] = json!([0, 1, 3]), &["mla_layers", "without 1", "layers.1.mamba."]),
        ("hybrid_config.json", |c| c["mla_layers"] = json!([0, 5]), &["mla_layers", "below 5", "[0,5]"]),
        ("hybrid_config.json", |c| c["mla_layers"] = json!([0, 0]), &["mla_layers", "different"]),
        ("hybrid_config.json", |c| c["mla_layers"] = "0".into(), &["mla_layers", "\"0\""]),
        ("hybrid_config.json", |c| c["n_layer"] = 6.into(), &["n_layer", "5", "6"]),
        ("hybrid_config.json", |c| c["ssm_cfg"]["d_conv"] = 3.into(), &["ssm_cfg.d_conv", "4", "3"]),
        ("hybrid_config.json", |c| c["ssm_cfg"]["d_state"] = 32.into(), &["d_inner", "4 * 32", "64"]),
        ("hybrid_config.json", |c| c["ssm_cfg"]["d_state"] = 6.into(), &["ssm_cfg.d_state", "multiple of 4", "6"]),
        ("hybrid_config.json", |c| c["d_xb"] = 24.into(), &["d_xb", "divisor", "24"]),
        ("hybrid_config.json", |c| c["qk_rope_head_dim"] = (-8).into(), &["qk_rope_head_dim", "-8"]),
        ("config.json", |c| c["vocab_size"] = 1.5.into(), &["vocab_size", "1.5"]),
        ("config.json", |c| c["eos_token_id"] = "</s>".into(), &["eos_token_id", "</s>"]),
        ("config.json", |c| c["rms_norm_eps"] = Value::Null, &["rms_norm_eps", "no such key"]),
    ];
    assert_refused("tiny-gqa", &cases);
    let mut folder = Folder::tiny();
    *folder.bytes("hybrid_config.json") = b"{\"hidden_size\": 64,".to_vec();
    assert_says(&folder.refusal(), &["hybrid_config.json", "invalid JSON"]);
    *folder.bytes("hybrid_config.json") = b"[]".to_vec();
    assert_says(&folder.refusal(), &["hybrid_config.json", "a JSON object", "[]"]);
}

/// HyLo, a successor that has files of the same names: nobody knows what these do.
#[test]
fn norms_that_no_zebra_has_are_refused() {
    for name in ["model.layers.0.mla.q_norm.weight", "model.layers.3.mla.k_norm.weight"] {
        let mut folder = Folder::tiny();
        folder.tensors(|list| list.push((name.into(), Dtype::F32, vec![16], vec![0; 64])));
        assert_says(&folder.refusal(), &[name, "the 5 layers that the configuration describes", "belongs to none"]);
    }
}
