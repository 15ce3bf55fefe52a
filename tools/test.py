"""Test a detector or classifier: mmdet's or mmpretrain's tools/test.py, as the config's default_scope says.

With all flags of that tool, after `import mmpaca`.
"""

from mmpaca.apis.launch import run_tool

if __name__ == '__main__':
    run_tool('test.py')
