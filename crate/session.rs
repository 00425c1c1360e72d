//! One photo, many questions: what is kept, what is computed again.
