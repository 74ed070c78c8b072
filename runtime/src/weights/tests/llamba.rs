use super::*;

#[test]
fn a_llamba_opens_with_its_padding() {
    let mut folder = Folder::fixture("tiny-llamba");
    let config = folder.config();
    assert_eq!((config.family, config.vocab_size, config.vocab_rows), (Family::Llamba, 97, 104));
    assert_eq!((config.layers.len(), config.final_norm.eps, config.layers[1].input_norm.eps), (2, 1e-5, 1e-5));
    let MixerKind::DiscreteMamba2(m) = &config.layers[1].mixer.kind else { panic!("all are discrete Mamba2") };
    assert_eq!((m.heads, m.head_dim, m.groups, m.d_state, m.in_proj_rows()), (4, 16, 4, 8, 196));
    folder.json("config.json", |c| c["norm_epsilon"] = 1e-6.into());
    let config = folder.config();
    assert_eq!((config.final_norm.eps, config.layers[0].post_norm.eps), (1e-6, 1e-5));
    // Both matrices of the vocabulary keep q8 where the others are q4.
    let q4 = quantized(&folder, Preset::Q4);
    let files = q4.memory();
    let checkpoint = block_on(Checkpoint::open(&files)).unwrap();
    for name in ["backbone.embedding.weight", "lm_head.weight"] {
        assert!(read_matrix(&checkpoint, name, 104, 64, WeightFormat::Q8).is_ok(), "{name}");
    }
}

#[test]
fn wrong_llambas_are_refused() {
    let cases: [Case; 17] = [
        (CONFIG_FILE, |c| c["ssm_cfg"]["activation"] = "silu".into(), &["ssm_cfg.activation", "identity", "silu"]),
        (CONFIG_FILE, |c| c["ssm_cfg"]["bias"] = true.into(), &["ssm_cfg.bias", "false", "true"]),
        (CONFIG_FILE, |c| c["ssm_cfg"]["conv_bias"] = false.into(), &["ssm_cfg.conv_bias", "true", "false"]),
        (CONFIG_FILE, |c| c["ssm_cfg"]["d_conv"] = 3.into(), &["ssm_cfg.d_conv", "4", "3"]),
        (CONFIG_FILE, |c| c["ssm_cfg"]["d_state"] = 132.into(), &["ssm_cfg.d_state", "at most 128", "132"]),
        (CONFIG_FILE, |c| c["ssm_cfg"]["d_state"] = 6.into(), &["ssm_cfg.d_state", "multiple of 4", "6"]),
        (CONFIG_FILE, |c| c["ssm_cfg"]["n_v_heads"] = 3.into(), &["ssm_cfg.n_v_heads", "64", "3"]),
        (CONFIG_FILE, |c| c["ssm_cfg"]["n_v_heads"] = 32.into(), &["ssm_cfg.n_v_heads", "multiple of 4", "32"]),
        (CONFIG_FILE, |c| c["ssm_cfg"]["n_v_heads"] = 128.into(), &["ssm_cfg.n_v_heads", "64", "128"]),
        (CONFIG_FILE, |c| c["ssm_cfg"]["n_qk_heads"] = 3.into(), &["ssm_cfg.n_qk_heads", "divisor", "4", "3"]),
        (CONFIG_FILE, |c| c["ssm_cfg"]["expand"] = Value::Null, &["ssm_cfg.expand", "no such key"]),
        (CONFIG_FILE, |c| c["ssm_cfg"] = Value::Null, &["ssm_cfg", "no such key"]),
        (CONFIG_FILE, |c| c["mlp_cfg"]["bias"] = true.into(), &["mlp_cfg.bias", "false", "true"]),
        (CONFIG_FILE, |c| c["mlp_cfg"]["act_fn"] = "gelu".into(), &["mlp_cfg.act_fn", "silu", "gelu"]),
        (CONFIG_FILE, |c| c["lm_head_bias"] = true.into(), &["lm_head_bias", "false", "true"]),
        (CONFIG_FILE, |c| c["norm_epsilon"] = Value::Null, &["norm_epsilon", "no such key"]),
        (CONFIG_FILE, |c| c["vocab_size"] = 105.into(), &["backbone.embedding.weight", "[112, 64]", "[104, 64]"]),
    ];
    assert_refused("tiny-llamba", &cases);
    let mut folder = Folder::fixture("tiny-llamba");
    folder.tensors(|list| list.retain(|t| t.0 != "lm_head.weight"));
    assert_says(&folder.refusal(), &["lm_head.weight", "tie_embeddings is false", "no such tensor"]);
    folder.json("config.json", |c| c["tie_embeddings"] = true.into());
    assert!(folder.config().tied_head());
    folder.tensors(|list| list.retain(|t| !t.0.ends_with("1.mixer.z_bias")));
    assert_says(&folder.refusal(), &["backbone.layers.1.mixer.z_bias", "[64]", "no such tensor"]);
}
