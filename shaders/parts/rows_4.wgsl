const ROWS: u32 = 4u; // rows that one workgroup of matvec.wgsl owns
