const ROWS: u32 = 1u; // rows that one workgroup of matvec.wgsl owns
