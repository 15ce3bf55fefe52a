# Tests the demo's model with a second metric: do its clusters follow objects?
_base_ = './mask-rcnn_paca-demo_shapes.py'

test_evaluator = [
    _base_.test_evaluator,
    dict(type='ClusterAlignmentMetric', ann_file=_base_.data_root + 'annotations/val.json'),
]
