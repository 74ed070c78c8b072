// The largest, or the sum, of what NEIGHBOURS lanes of a subgroup have of a line: 2, 4 or 8 of them, side by side.

fn most_of_line(v: f32) -> f32 {
    var most = max(v, subgroupShuffleXor(v, 1u));
    if (NEIGHBOURS > 2u) {
        most = max(most, subgroupShuffleXor(most, 2u));
    }
    if (NEIGHBOURS > 4u) {
        most = max(most, subgroupShuffleXor(most, 4u));
    }
    return most;
}

fn sum_of_line(v: f32) -> f32 {
    var sum = v + subgroupShuffleXor(v, 1u);
    if (NEIGHBOURS > 2u) {
        sum += subgroupShuffleXor(sum, 2u);
    }
    if (NEIGHBOURS > 4u) {
        sum += subgroupShuffleXor(sum, 4u);
    }
    return sum;
}
