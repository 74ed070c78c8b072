// A matrix in one binding.

@group(0) @binding(10) var<storage, read> words_0: array<Word>; // [n * k / 32 * WORDS]

fn word_at(index: u32) -> Word { return words_0[index]; }
