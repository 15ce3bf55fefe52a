"""From a folder of images and labels to a trained detector: ``mmpaca train --data``.

``prepare`` reads, splits and checks the labels; ``statistics`` looks at the objects; ``recipe``
decides and says why; ``config_text`` writes the decisions as a config; ``project`` does all of it
in order, trains and shows the result.
"""
