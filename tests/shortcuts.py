"""What mmengine spends seconds on in every run and no test is about. Import it to take effect."""

import functools

import mmengine.config.config
import mmengine.config.utils

# For each base of another package it imports pkg_resources anew: most of the time to read a config.
mmengine.config.config.is_installed = functools.cache(mmengine.config.config.is_installed)
# And it reads all metafiles of that package.
mmengine.config.utils.load = functools.cache(mmengine.config.utils.load)
# It has yapf lay out the whole configuration, four times a run; it is as valid without.
mmengine.config.config.FormatCode = lambda text, **style: (text, True)
