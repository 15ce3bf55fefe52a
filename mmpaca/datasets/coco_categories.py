"""Labels follow the names of classes, not the order of categories in a file.

mmdet numbers labels by the order of a file's ``categories``, in CocoDataset and again in CocoMetric.
Where the order differs from ``metainfo.classes`` or between two files, a model is trained or
evaluated with the labels of other classes.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any


def check_categories(categories: Any) -> None:
    """Check the ``categories`` of a COCO annotation file.

    Raises:
        ValueError: it is not a list of dicts with an id and a name, two have the
            same, or ids are of two types.
    """
    if not isinstance(categories, list) or not categories:
        raise ValueError('the list of categories is missing or empty')
    for place, category in enumerate(categories):
        if (
            not isinstance(category, dict)
            or type(category.get('id')) not in (int, str)
            or type(category.get('name')) is not str
        ):
            raise ValueError(f'category no. {place} is {category!r:.80}: it needs an id and a name')
    if len({type(category['id']) for category in categories}) > 1:
        raise ValueError('some categories have a number as id, others a text: use one of them')
    for key in ('id', 'name'):
        ((value, number),) = Counter(category[key] for category in categories).most_common(1)
        if number > 1:
            raise ValueError(f'{number} categories have the {key} {value!r}: merge or rename them')


def in_order_of_classes(categories: list[dict], classes: Sequence[str]) -> list[dict]:
    """Sort categories as the classes, the others last.

    Args:
        categories: list in a COCO annotation file.
        classes: ``metainfo['classes']`` of a dataset.

    Raises:
        ValueError: see :func:`check_categories`; or a class is not among them.
    """
    check_categories(categories)
    names = [category['name'] for category in categories]
    unknown = [name for name in classes if name not in names]
    if unknown:  # mmdet's labels would be those of other classes
        raise ValueError(
            f'it has the categories {names}, not {unknown}: set dataset.metainfo.classes to names '
            'in the file'
        )
    places = {name: place for place, name in enumerate(classes)}
    return sorted(categories, key=lambda category: places.get(category['name'], len(places)))


def check_category_order(categories: list[dict], classes: Sequence[str]) -> None:
    """Check that mmdet's CocoDataset or CocoMetric gives each class its own label.

    Args:
        categories: list in the annotation file.
        classes: ``metainfo['classes']`` of the dataset.

    Raises:
        ValueError: as :func:`in_order_of_classes`; or the order differs.
    """
    right = [category['name'] for category in in_order_of_classes(categories, classes)]
    given = [category['name'] for category in categories if category['name'] in set(classes)]
    if given != right[: len(given)]:
        raise ValueError(
            f'its categories are in the order {given}, the classes in the order {list(classes)}. '
            "mmdet numbers labels by the file's order: sort the categories in the file as "
            'metainfo.classes'
        )
