mod files;

fn main() {}
