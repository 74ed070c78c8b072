use super::*;

#[test]
fn what_no_x_ecomla_has_is_refused() {
    let cases: [Case; 2] = [
        ("MLA_config.json", |c| c["attn_layers"] = json!([9]), &["attn_layers", "below 3"]),
        (
            "mla_layer_config.json",
            |c| c["qk_rope_head_dim"] = 7.into(),
            &["mla_layer_config.json", "qk_rope_head_dim", "even"],
        ),
    ];
    assert_refused("tiny-xecomla-fixed", &cases);
}
