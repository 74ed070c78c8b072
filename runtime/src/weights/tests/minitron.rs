use super::*;

const MINITRON: &str = "tiny-minitron";

#[test]
fn a_minitron_opens_in_every_form_of_its_configuration() {
    let folder = Folder::fixture(MINITRON);
    let config = folder.config();
    let MixerKind::Attention(attention) = &config.layers[2].mixer.kind else { panic!("all layers are attention") };
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim, attention.rotary), (6, 2, 16, 8));
    assert_eq!((config.family, config.tied_head()), (Family::Minitron, false));
    assert_eq!((config.layers[0].mlp.kind, config.layers[0].mlp.intermediate_size), (MlpKind::Relu2, 96));
    assert_eq!(config.final_norm.eps, 0.01);
    assert_eq!(config.final_norm.kind, NormKind::Layer { bias: "model.norm.bias".into() });
    assert!(config.tensors().iter().all(|t| !t.name.contains("gate_proj")));

    // Heads are wider together than the residual stream: without head_dim, q_proj says how wide.
    let mut other = folder.clone();
    other.json("config.json", |c| {
        c["head_dim"] = Value::Null;
        c["hidden_act"] = Value::Null;
        c["partial_rotary_factor"] = Value::Null;
        c["rope_theta"] = Value::Null;
        c["rope_percent"] = 0.5.into();
        c["tie_word_embeddings"] = Value::Null;
    });
    assert_eq!(other.config(), config);
    other.json("config.json", |c| {
        c["rope_percent"] = Value::Null;
        c["rope_parameters"] = json!({"partial_rotary_factor": 0.25, "rope_theta": 20_000.0, "rope_type": "default"});
    });
    let MixerKind::Attention(newer) = &other.config().layers[0].mixer.kind.clone() else { panic!("attention") };
    assert_eq!((newer.rotary, newer.rope.inv_freq.len()), (4, 2));
    assert!((f64::from(newer.rope.inv_freq[1]) - 20_000f64.powf(-0.5)).abs() < 1e-8);
    assert_eq!(newer.rope.softmax_scale, 0.25, "of the whole head");
}

#[test]
fn what_no_minitron_has_is_refused() {
    let cases: [Case; 9] = [
        (CONFIG_FILE, |c| c["hidden_act"] = "silu".into(), &["config.json", "hidden_act", "relu2", "silu"]),
        (CONFIG_FILE, |c| c["attention_bias"] = true.into(), &["config.json", "attention_bias", "false", "true"]),
        (CONFIG_FILE, |c| c["mlp_bias"] = true.into(), &["config.json", "mlp_bias", "false", "true"]),
        (
            CONFIG_FILE,
            |c| c["rope_scaling"] = json!({"rope_type": "linear", "factor": 2.0}),
            &["config.json", "rope_scaling.rope_type", "llama3", "linear"],
        ),
        (CONFIG_FILE, |c| c["norm_eps"] = 0.into(), &["config.json", "norm_eps", "above 0"]),
        (
            CONFIG_FILE,
            |c| c["partial_rotary_factor"] = 1.5.into(),
            &["partial_rotary_factor", "an even part of the 16", "1.5"],
        ),
        (
            CONFIG_FILE,
            |c| c["partial_rotary_factor"] = 0.2.into(),
            &["partial_rotary_factor", "an even part of the 16", "0.2"],
        ),
        (
            CONFIG_FILE,
            |c| c["num_attention_heads"] = 3.into(),
            &["num_key_value_heads", "a divisor of the 3 query heads", "2"],
        ),
        (
            CONFIG_FILE,
            |c| {
                (c["head_dim"], c["num_attention_heads"]) = (Value::Null, 10.into());
            },
            &["model.layers.0.self_attn.q_proj.weight", "10 heads", "num_attention_heads", "96 rows"],
        ),
    ];
    assert_refused(MINITRON, &cases);
    for name in ["model.layers.1.post_attention_layernorm.bias", "model.norm.bias", "lm_head.weight"] {
        let mut folder = Folder::fixture(MINITRON);
        folder.tensors(|list| list.retain(|(n, ..)| n != name));
        folder.json("config.json", |c| c["tie_word_embeddings"] = Value::Null);
        assert_says(&folder.refusal(), &[name, "no such tensor"]);
    }
}
