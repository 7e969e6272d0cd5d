//! The arithmetic of JPEG pictures after entropy decoding: inverse transform, upsampling of chroma,
//! colours, with the results of libjpeg-turbo 3 to the bit.

mod colours;
mod idct;
mod present;
mod upsample;

pub use colours::{rgb, rgb_row};
pub use idct::idct;
pub use present::present;
pub use upsample::{double_columns, double_rows};
