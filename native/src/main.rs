mod files;
mod hub;

fn main() {}
