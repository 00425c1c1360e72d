//! Tests of the house as a whole, natively: walls between its rooms, goldens on the devices at hand, a conversation.

mod counters;
mod eyes;
mod goldens;
mod gpu_session;
mod groma_s;
mod quantisation;
mod session;
mod walls;
