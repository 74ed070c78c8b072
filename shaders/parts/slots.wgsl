// The slots whose cached rows a dispatch binds: where one binding is too small for a layer's rows, they are cut by slots,
// and each piece has a dispatch of its own. `params` has first_slot and slots.

// Whether the rows of a slot are in this piece: the same for a whole workgroup, whose rows are of one slot.
fn is_here(slot: u32) -> bool { return slot - params.first_slot < params.slots; }

// The place of the first position of a slot that is here.
fn first_position(slot: u32) -> u32 { return (slot - params.first_slot) * params.context; }
