//! Biases, penalties, `softmax(z / temperature)` cut to top_k, top_p and min_p by a full sort, and a draw by Gumbel noise:
//! the tokens left, in order, and the one that maximises `ln p + noise`.

use zebra_runtime::engine::SamplingOptions;

/// Tokens that a cut by top_p or min_p leaves, at most.
const MOST_CANDIDATES: usize = 1024;

/// What one token is drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    pub logits: &'a [f32],
    pub options: &'a SamplingOptions,
    /// Every token before, prompt and answer.
    pub context: &'a [u32],
    /// Tokens of the answer so far: the last ones of the context.
    pub index: usize,
}

/// What may be drawn.
#[derive(Debug, Clone)]
pub struct Cut {
    /// Tokens with their probabilities at the temperature, which sum to one, best first.
    pub tokens: Vec<(u32, f64)>,
    /// How near the cut was to leaving another number of tokens, in probability.
    pub edge: f64,
}

/// A token.
#[derive(Debug, Clone)]
pub struct Drawn {
    pub id: u32,
    /// How near another token was to being drawn, in logits; infinite without a draw.
    pub margin: f64,
    pub cut: Cut,
    /// Log probability of every token before temperature and cut.
    pub logprobs: Vec<f64>,
    /// The tokens of the largest log probabilities, best first, as many as were asked for.
    pub best: Vec<u32>,
}

/// Logits after biases and penalties.
pub fn adjusted(sample: Sample) -> Vec<f64> {
    let o = sample.options;
    let mut z: Vec<f64> = sample.logits.iter().map(|&v| f64::from(v)).collect();
    for &(id, bias) in &o.logit_bias {
        z[id as usize] += f64::from(bias);
    }
    let first = sample.context.len().saturating_sub(o.penalty_window as usize);
    let answer = (sample.context.len() - sample.index).max(first);
    let mut seen: Vec<u32> = sample.context[first..].to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        let v = &mut z[id as usize];
        let penalty = f64::from(o.repetition_penalty);
        *v = if *v > 0.0 { *v / penalty } else { *v * penalty };
        let count = sample.context[answer..].iter().filter(|&&t| t == id).count();
        if count > 0 {
            *v -= f64::from(o.presence_penalty) + count as f64 * f64::from(o.frequency_penalty);
        }
    }
    z
}

/// Ids by falling value, the lower of equals first; both zeros are equal.
fn sorted(z: &[f64]) -> Vec<u32> {
    let value = |id: u32| z[id as usize] + 0.0;
    let mut ids: Vec<u32> = (0..z.len() as u32).collect();
    ids.sort_by(|&a, &b| value(b).total_cmp(&value(a)).then(a.cmp(&b)));
    ids
}

/// The tokens that may be drawn at a temperature over 0.
pub fn cut(z: &[f64], order: &[u32], o: &SamplingOptions) -> Cut {
    let top = z[order[0] as usize];
    let weight = |id: u32| ((z[id as usize] - top) / f64::from(o.temperature)).exp();
    let mut edge = f64::INFINITY;
    let mut left = order;
    if o.top_k > 0 {
        left = &left[..left.len().min(o.top_k as usize)];
    }
    if o.top_p < 1.0 || o.min_p > 0.0 {
        let total: f64 = left.iter().map(|&id| weight(id)).sum();
        left = &left[..left.len().min(MOST_CANDIDATES)];
        let mut before = 0.0;
        let mut keep = left.len();
        for (i, &id) in left.iter().enumerate() {
            let p = weight(id);
            let mut refused = false;
            if o.top_p < 1.0 && i > 0 {
                edge = edge.min((before / total - f64::from(o.top_p)).abs());
                refused |= before / total >= f64::from(o.top_p);
            }
            if o.min_p > 0.0 && i > 0 {
                edge = edge.min((p - f64::from(o.min_p)).abs());
                refused |= p < f64::from(o.min_p);
            }
            if refused {
                keep = i;
                break;
            }
            before += p;
        }
        left = &left[..keep];
    }
    let total: f64 = left.iter().map(|&id| weight(id)).sum();
    Cut { tokens: left.iter().map(|&id| (id, weight(id) / total)).collect(), edge }
}

/// pcg4d of Jarzynski and Olano's "Hash Functions for GPU Rendering", the fourth word.
fn hash(words: [u32; 4]) -> u32 {
    let [mut x, mut y, mut z, mut w] = words.map(|v| v.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    for last in [false, true] {
        x = x.wrapping_add(y.wrapping_mul(w));
        y = y.wrapping_add(z.wrapping_mul(x));
        z = z.wrapping_add(x.wrapping_mul(y));
        w = w.wrapping_add(y.wrapping_mul(z));
        if !last {
            [x, y, z, w] = [x, y, z, w].map(|v| v ^ (v >> 16));
        }
    }
    w
}

/// -ln(-ln(u)), u in (0, 1) from the hash.
pub fn noise(seed: u64, index: usize, id: u32) -> f64 {
    let h = hash([seed as u32, (seed >> 32) as u32, index as u32, id]);
    let v = (f64::from(h) + 0.5) / 4_294_967_296.0;
    -(-(-v).ln_1p()).ln()
}

/// Draws one token.
pub fn sample(sample: Sample) -> Drawn {
    let o = sample.options;
    let z = adjusted(sample);
    let order = sorted(&z);
    let top = z[order[0] as usize];
    let log_sum = z.iter().map(|v| (v - top).exp()).sum::<f64>().ln();
    let logprobs = z.iter().map(|v| v - top - log_sum).collect();
    let best = order[..order.len().min(o.logprobs.unwrap_or(0) as usize)].to_vec();
    if o.temperature == 0.0 {
        let cut = Cut { tokens: vec![(order[0], 1.0)], edge: f64::INFINITY };
        return Drawn { id: order[0], margin: f64::INFINITY, cut, logprobs, best };
    }
    let cut = cut(&z, &order, o);
    let mut scores: Vec<(f64, u32)> =
        cut.tokens.iter().map(|&(id, p)| (p.ln() + noise(o.seed, sample.index, id), id)).collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let margin = scores.get(1).map_or(f64::INFINITY, |second| scores[0].0 - second.0);
    Drawn { id: scores[0].1, margin, cut, logprobs, best }
}
