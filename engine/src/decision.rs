//! What was decided, and every reason: a decision is an explanation, not a log line.
