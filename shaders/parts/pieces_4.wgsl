// A matrix over the adapter's binding limit, cut by rows into as many as four bindings of PIECE_WORDS words each.

override PIECE_WORDS: u32;

@group(0) @binding(10) var<storage, read> words_0: array<Word>;
@group(0) @binding(11) var<storage, read> words_1: array<Word>;
@group(0) @binding(12) var<storage, read> words_2: array<Word>;
@group(0) @binding(13) var<storage, read> words_3: array<Word>;

fn word_at(index: u32) -> Word {
    let at = index % PIECE_WORDS;
    switch (index / PIECE_WORDS) {
        case 0u: { return words_0[at]; }
        case 1u: { return words_1[at]; }
        case 2u: { return words_2[at]; }
        default: { return words_3[at]; }
    }
}
