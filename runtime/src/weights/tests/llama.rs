use super::*;

#[test]
fn what_no_llama_has_is_refused() {
    let cases: [Case; 6] = [
        (CONFIG_FILE, |c| c["attention_bias"] = true.into(), &["attention_bias", "false"]),
        (CONFIG_FILE, |c| c["hidden_act"] = "gelu".into(), &["hidden_act", "silu", "gelu"]),
        (CONFIG_FILE, |c| c["num_key_value_heads"] = 3.into(), &["num_key_value_heads", "divisor", "3"]),
        (
            CONFIG_FILE,
            |c| c["rope_scaling"]["rope_type"] = "longrope".into(),
            &["config.json", "rope_scaling.rope_type", "llama3", "longrope"],
        ),
        (
            CONFIG_FILE,
            |c| c["rope_scaling"] = json!({"type": "linear", "factor": 2.0}),
            &["rope_scaling.type", "llama3", "linear"],
        ),
        (
            CONFIG_FILE,
            |c| c["rope_scaling"]["low_freq_factor"] = 8.into(),
            &["rope_scaling.low_freq_factor", "less than", "8"],
        ),
    ];
    assert_refused("tiny-llama", &cases);
    // What Qwen has and Llama has not.
    let mut folder = Folder::fixture("tiny-llama");
    folder.tensors(|list| {
        list.push(("model.layers.0.self_attn.q_norm.weight".into(), Dtype::F32, vec![16], vec![0; 64]));
    });
    assert_says(&folder.refusal(), &["model.layers.0.self_attn.q_norm.weight", "belongs to none"]);
}
