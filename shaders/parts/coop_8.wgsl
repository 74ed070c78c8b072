// Cooperative matrices of 8 x 8: of f16, their sums of f32. Mesa's software driver has them.

const SIDE: u32 = 8u;
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sums = coop_mat8x8<f32, C>;
