use super::*;

#[test]
fn what_no_x_ecomla_has_is_refused() {
    let cases: [Case; 5] = [
        ("MLA_config.json", |c| c["attn_layers"] = json!([9]), &["attn_layers", "below 3"]),
        (
            "MLA_config.json",
            |c| c["attn_layers"] = json!([1]),
            &["MLA_config.json", "attn_layers", "a list without 1, which has model.layers.1.mla.", "[1]"],
        ),
        (
            "mla_layer_config.json",
            |c| c["rope_scaling"] = json!({"type": "dynamic", "factor": 2.0}),
            &["mla_layer_config.json", "rope_scaling.type", "yarn", "dynamic"],
        ),
        (
            "mla_layer_config.json",
            |c| {
                (c["rope_scaling"], c["rope_type"]) = (json!({"rope_type": "llama3", "factor": 2.0}), "linear".into());
            },
            &["mla_layer_config.json", "\"rope_type\"", "yarn", "linear"],
        ),
        (
            "mla_layer_config.json",
            |c| c["qk_rope_head_dim"] = 7.into(),
            &["mla_layer_config.json", "qk_rope_head_dim", "even"],
        ),
    ];
    assert_refused("tiny-xecomla-fixed", &cases);
}
