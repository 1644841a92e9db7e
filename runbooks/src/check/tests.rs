//! Every rule of the language, one small case each.
