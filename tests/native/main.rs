//! Tests of the house as a whole, natively: walls between its rooms, goldens on the devices at hand, a conversation.

mod goldens;
mod session;
mod walls;
