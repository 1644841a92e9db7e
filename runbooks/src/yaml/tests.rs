//! What YAML may not do here.
