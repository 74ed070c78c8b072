//! Which of several kernels for one thing run. What an adapter offers need not be what is fastest on it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gpu::{Cooperative, Gpu};

/// The twins that run, by the names of their kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Twins {
    /// One order of summation whatever the number of rows: no tiled products, no chunked scan, no split attention.
    pub plain: bool,
    /// Sums by subgroup operations instead of a tree in workgroup memory.
    pub subgroups: bool,
    /// Of few rows, products with quantized weights on int8 dot products, and rows left coded for them.
    pub matvec_i8: bool,
    /// The same of many rows.
    pub matmul_i8: bool,
    /// Of many rows, products with weights that are not f32 on cooperative matrices.
    pub matmul_coop: Option<Cooperative>,
    /// Attention on cooperative matrices.
    pub mla_attend_coop: Option<Cooperative>,
}

/// A twin that can be switched off, for those who choose.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    pub name: &'static str,
    /// Whether it runs.
    pub on: bool,
    /// The others without it.
    pub without: Twins,
}

impl Twins {
    /// None of them.
    pub const fn plain() -> Self {
        let (matvec_i8, matmul_i8) = (false, false);
        Self { plain: true, subgroups: false, matvec_i8, matmul_i8, matmul_coop: None, mla_attend_coop: None }
    }

    /// Those that need no optional feature.
    pub const fn portable() -> Self {
        Self { plain: false, matvec_i8: true, matmul_i8: true, ..Self::plain() }
    }

    /// All that a device can run.
    pub fn offered(gpu: &Gpu) -> Self {
        let (matmul_coop, mla_attend_coop) = (gpu.cooperative(), gpu.cooperative());
        Self { subgroups: gpu.has_subgroups(), matmul_coop, mla_attend_coop, ..Self::portable() }
    }

    /// Each that can be chosen, in the order in which they are: `matmul_i8` runs where `matmul_coop` does not.
    pub fn axes(self) -> [Axis; 5] {
        let axis = |name, on, without| Axis { name, on, without };
        [
            axis("subgroups", self.subgroups, Self { subgroups: false, ..self }),
            axis("matvec_i8", self.matvec_i8, Self { matvec_i8: false, ..self }),
            axis("matmul_coop", self.matmul_coop.is_some(), Self { matmul_coop: None, ..self }),
            axis("matmul_i8", self.matmul_i8, Self { matmul_i8: false, ..self }),
            axis("mla_attend_coop", self.mla_attend_coop.is_some(), Self { mla_attend_coop: None, ..self }),
        ]
    }

    /// What of these is offered: they may have been chosen for another device, or read from a file.
    #[must_use]
    pub fn within(self, offered: Self) -> Self {
        if self.plain {
            return Self::plain();
        }
        let off = self.axes().map(|axis| !axis.on);
        (0..off.len()).filter(|&i| off[i]).fold(offered, |twins, i| twins.axes()[i].without)
    }
}

impl fmt::Display for Twins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.axes().iter().filter(|axis| axis.on).map(|axis| axis.name).collect();
        match (self.plain, names.is_empty()) {
            (true, _) => f.write_str("plain"),
            (false, true) => f.write_str("no twins"),
            (false, false) => f.write_str(&names.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_offered_runs() {
        let (large, small) = (Cooperative { side: 16, lanes: 32 }, Cooperative { side: 8, lanes: 8 });
        let all = |m| Twins { subgroups: true, matmul_coop: Some(m), mla_attend_coop: Some(m), ..Twins::portable() };
        let chosen = Twins { matmul_i8: false, mla_attend_coop: None, ..all(large) };
        assert_eq!(chosen.within(all(large)), chosen);
        // Matrices of another device's size are that device's.
        assert_eq!(chosen.within(all(small)), Twins { matmul_coop: Some(small), ..chosen });
        assert_eq!(chosen.within(Twins::portable()), Twins { matmul_i8: false, ..Twins::portable() });
        assert_eq!(all(large).within(chosen), chosen);
        assert_eq!(Twins::plain().within(all(large)), Twins::plain());
    }

    #[test]
    fn every_twin_is_an_axis_and_has_a_name() {
        let m = Some(Cooperative { side: 16, lanes: 32 });
        let all = Twins { subgroups: true, matmul_coop: m, mla_attend_coop: m, ..Twins::portable() };
        let none = all.axes().iter().enumerate().fold(all, |twins, (i, _)| twins.axes()[i].without);
        assert_eq!(none, Twins { plain: false, ..Twins::plain() });
        assert_eq!(all.to_string(), "subgroups, matvec_i8, matmul_coop, matmul_i8, mla_attend_coop");
        assert_eq!((none.to_string(), Twins::plain().to_string()), ("no twins".into(), "plain".into()));
    }
}
