use super::*;

const MAMBA1: &str = "tiny-mambainllama-mamba1";

#[test]
fn mambainllama_layers_are_what_their_tensors_say() {
    let mamba1 = || Folder::fixture(MAMBA1);
    let mut folder = mamba1();
    let config = folder.config();
    let kinds: Vec<&str> = config.layers.iter().map(|layer| layer.mixer.name()).collect();
    assert_eq!(kinds, ["mamba1", "attention", "mamba1"]);
    let MixerKind::Mamba1(sizes) = &config.layers[0].mixer.kind else { panic!("layer 0 is Mamba1") };
    assert_eq!((sizes.d_inner, sizes.d_xb, sizes.dt_rank), (128, 64, 4));
    // As released files have it: null, for expand times the width, which is 64 here and needs expand 2.
    folder.json("mamba_config.json", |c| c["d_inner"] = Value::Null);
    assert_says(&folder.refusal(), &["model.layers.0.mamba.in_proj_z.weight", "[64, 64]", "[128, 64]"]);
    folder.json("mamba_config.json", |c| c["ssm_cfg"]["expand"] = 2.into());
    assert_eq!(folder.config(), config);
    folder.json("mamba_config.json", |c| c["ssm_cfg"]["dt_rank"] = "auto".into());
    assert_eq!(folder.config(), config);
    assert_eq!(quantized(&folder, Preset::Q4).config(), config);

    let cases: [Case; 11] = [
        ("config.json", |c| c["model_type"] = "mistral".into(), &["config.json", "model_type", "llama", "mistral"]),
        ("mamba_config.json", |c| c["attn_layers"] = json!([1, 2]), &["attn_layers", "without 2", "layers.2.mamba"]),
        ("mamba_config.json", |c| c["attn_layers"] = json!([]), &["attn_layers", "with 1", "layers.1.self_attn"]),
        ("mamba_config.json", |c| c["ssm_cfg"]["ngroups"] = 4.into(), &["ssm_cfg.ngroups", "Mamba1", "4"]),
        ("mamba_config.json", |c| c["ssm_cfg"]["d_state"] = 32.into(), &["ssm_cfg.d_state", "16", "32"]),
        ("mamba_config.json", |c| c["ssm_cfg"]["d_conv"] = 3.into(), &["ssm_cfg.d_conv", "4", "3"]),
        ("mamba_config.json", |c| c["ssm_cfg"]["dt_rank"] = 8.into(), &["layers.0.mamba.dt_proj_down", "[8, 64]"]),
        ("mamba_config.json", |c| c["ssm_cfg"]["repeat_kv_before_conv"] = false.into(), &["repeat_kv_before_conv"]),
        ("mamba_config.json", |c| c["d_xb"] = 40.into(), &["d_xb", "divisor of d_inner (128)", "40"]),
        ("mamba_config.json", |c| c["d_xb"] = 8.into(), &["d_xb", "multiple of d_state (16)", "8"]),
        ("mamba_config.json", |c| c["d_inner"] = 120.into(), &["d_inner", "multiple of d_state (16)", "120"]),
    ];
    assert_refused(MAMBA1, &cases);

    const BIAS: &str = "model.layers.2.mamba.dt_proj.bias";
    let mut folder = mamba1();
    folder.tensors(|list| list.retain(|t| t.0 != BIAS));
    assert_says(&folder.refusal(), &[BIAS, "[128]", "no such tensor"]);
    let mut folder = mamba1();
    folder.tensors(|list| {
        list.retain(|t| t.0 != "model.layers.2.mamba.in_proj_x.weight");
        list.push(("model.layers.2.mamba.in_proj.weight".into(), Dtype::F16, vec![8, 64], vec![0; 2 * 8 * 64]));
    });
    assert_says(&folder.refusal(), &["model.layers.2.mamba.in_proj.weight", "mamba1, as layer 0 is", "mamba2"]);
    let mut folder = Folder::fixture("tiny-mambainllama");
    assert!(matches!(folder.config().layers[0].mixer.kind, MixerKind::Mamba2(_)));
    folder.json("mamba_config.json", |c| c["attn_layers"] = json!([3]));
    assert_says(&folder.refusal(), &["attn_layers", "with 1", "model.layers.1.self_attn.q_proj.weight"]);
    let cases: [Case; 3] = [
        (
            "config.json",
            |c| c["rope_scaling"] = json!({"rope_type": "dynamic", "factor": 2.0}),
            &["config.json", "rope_scaling.rope_type", "llama3", "dynamic"],
        ),
        ("mamba_config.json", |c| c["n_layer"] = 5.into(), &["mamba_config.json", "n_layer", "5"]),
        (
            "mamba_config.json",
            |c| c["attn_layers"] = json!([1]),
            &["attn_layers", "a list with 3", "layers.3.self_attn"],
        ),
    ];
    assert_refused("tiny-mambainllama", &cases);
}
