"""Test a detector: mmdet's tools/test.py, with all its flags, after `import mmpaca`."""

from mmpaca.launch import run_mmdet_tool

if __name__ == '__main__':
    run_mmdet_tool('test.py')
