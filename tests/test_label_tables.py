"""Tables of labels as people have them: what is guessed of their columns and labels, and what is
refused instead. No image is opened here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.splitting.folder_layout import Layout
from pawtune.data_pipeline.splitting.label_tables.label_table import LabelFile, read_labels
from tests.command_line import pawtune

Read = Callable[..., Layout]
Refusal = Callable[..., str]
PETS = ("cat", "dog")


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a table of a header and 20 rows beside 0.jpg to 19.jpg."""

    def read_table(
        header: str, row: Callable[[int], str], *, label: str | None = None, path: str | None = None
    ) -> Layout:
        for number in range(20):
            (tmp_path / f"{number}.jpg").write_bytes(b"not opened")
        table = tmp_path / "t.csv"
        table.write_text("\n".join([header, *map(row, range(20))]) + "\n", encoding="utf-8")
        return read_labels(tmp_path, LabelFile(table, label, path))

    return read_table


@pytest.fixture
def refusal(read: Read) -> Refusal:
    def refuse(header: str, row: Callable[[int], str]) -> str:
        with pytest.raises(DataError) as refused:
            read(header, row)
        return str(refused.value)

    return refuse


def labels(layout: Layout) -> dict[str, str]:
    return {found.path: found.label for found in layout.candidates}


def pet(number: int) -> str:
    return PETS[number < 10]


# Which column names the images


@pytest.mark.parametrize(
    ("header", "column"),
    [
        (",image_id,label", "image_id"),
        (",photo,label", "photo"),
        ("number,image_id,label", "image_id"),
        ("id,file-name,label", "file-name"),
    ],
)
def test_a_column_named_for_images_wins_over_an_index(read: Read, header: str, column: str) -> None:
    layout = read(header, lambda n: f"{n},{19 - n},{pet(19 - n)}")
    assert labels(layout)["0.jpg"] == pet(0)
    assert f"images in column {column!r}, labels in 'label'" in layout.notes[0]


def test_an_index_that_names_more_files_is_not_preferred(read: Read) -> None:
    layout = read(",image_id,label", lambda n: f"{n},{21 - n},{pet(21 - n)}")
    assert labels(layout)["2.jpg"] == pet(2)
    assert len(layout.candidates) == 18


def test_an_index_is_no_path_where_the_named_column_names_no_file(refusal: Refusal) -> None:
    line = refusal(",image_id,label", lambda n: f"{n},IMG_{n}.jpg,{pet(n)}")
    assert "of 20 rows 'image_id' names 0 files (such as 'IMG_0.jpg'; the folder has " in line


def test_numbers_beside_an_image_that_has_several_rows_name_no_images(read: Read) -> None:
    layout = read("left,image,label", lambda n: f"{n},{n // 2},{PETS[n // 2 % 2]}")
    assert labels(layout) == {f"{number}.jpg": PETS[number % 2] for number in range(10)}


def test_the_column_of_labels_does_not_name_the_images(read: Read) -> None:
    layout = read("grade,photo", lambda n: f"{n // 4 * 5 + n % 4},{n}.jpg", label="grade")
    assert labels(layout)["4.jpg"] == "5"


def test_an_index_of_file_names_is_the_path_column(read: Read) -> None:
    assert labels(read(",label", lambda n: f"{n}.jpg,{n % 4}"))["7.jpg"] == "3"


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_excels_line_with_the_separator_is_no_header(
    read: Read, refusal: Refusal, separator: str
) -> None:
    start = f"sep={separator}\nimage{separator}label"
    layout = read(start, lambda n: f"{n}.jpg{separator}{pet(n)}")
    assert labels(layout)["3.jpg"] == pet(3)
    assert "line 3: every row must have 2 values" in refusal(start, lambda n: f"{n}.jpg")


def test_two_columns_that_name_different_files_are_refused(refusal: Refusal, read: Read) -> None:
    def row(number: int) -> str:
        return f"{number},{19 - number},{pet(number)}"

    assert refusal("id,number,label", row).endswith(
        "one column must name the images, but 'id' and 'number' name different files (line 2: '0' "
        "and '19'); give the right one with --path-column"
    )
    assert labels(read("id,number,label", row, path="number"))["19.jpg"] == pet(0)
    both = read("id,number,label", lambda n: f"{n},{n}.jpg,{pet(n)}")
    assert labels(both)["0.jpg"] == pet(0)


def test_names_of_no_file_are_shown_beside_a_file(refusal: Refusal) -> None:
    line = refusal("file,label", lambda n: f"{n}.JPG,{pet(n)}")
    assert "'file' names 0 files (such as '0.JPG'; the folder has " in line
    assert ".jpg'); give it with --path-column" in line


def test_a_first_line_that_names_a_file_is_no_header(refusal: Refusal, read: Read) -> None:
    line = refusal("19.jpg,dog", lambda n: f"{n}.jpg,{pet(n)}" if n < 19 else "18.jpg,dog")
    assert line.endswith(
        "t.csv: the first line must name the columns, but '19.jpg' is a file; add a line above "
        "it: image,label"
    )
    # Columns that pandas numbered, and a file that is called as the column.
    assert len(read("0,1", lambda n: f"{n}.jpg,{pet(n)}").candidates) == 20


# Splits


@pytest.mark.parametrize(
    ("column", "values", "name"),
    [
        ("is_test", "01", "train_test"),
        ("is_test", ("False", "True"), "train_test"),
        ("test", ("0.0", "1.0"), "train_test"),
        ("is_val", "01", "train_validation"),
        ("is_train", "10", "train_validation"),
    ],
)
def test_a_column_that_says_which_rows_are_test_gives_the_split(
    read: Read, column: str, values: tuple[str, str], name: str
) -> None:
    layout = read(f"file,label,{column}", lambda n: f"{n}.jpg,{pet(n)},{values[n % 4 == 0]}")
    assert layout.name == name
    assert {found.path for found in layout.candidates if found.split != "train"} == {
        f"{number}.jpg" for number in range(0, 20, 4)
    }
    assert f"splits in {column!r}" in layout.notes[0]


def test_a_column_of_folds_is_said_to_be_unused(read: Read) -> None:
    layout = read("file,kind,fold", lambda n: f"{n}.jpg,{pet(n)},{n % 5}")
    assert (layout.name, layout.class_names) == ("classes", PETS)
    assert layout.notes[1] == (
        "column 'fold' is not used, new splits are made: to give them, add a column named split "
        "that holds train, validation and test"
    )


def test_flags_that_do_not_say_one_split_are_refused(refusal: Refusal) -> None:
    line = refusal("file,label,is_test", lambda n: f"{n}.jpg,{pet(n)},{n % 3 or ''}")
    assert "column 'is_test' must hold 0 and 1, received '', '2'" in line
    line = refusal(
        "file,label,is_test,is_val", lambda n: f"{n}.jpg,{pet(n)},{n % 2},{int(n % 3 == 0)}"
    )
    assert "'is_test' and 'is_val' both give splits; put them in one column named split" in line


@pytest.mark.parametrize("column", ["test", "is_test", "fold", "set"])
def test_a_column_named_as_of_splits_holds_labels_only_if_said(
    read: Read, refusal: Refusal, column: str
) -> None:
    def row(number: int) -> str:
        return f"{number}.jpg,{number % 2}"

    assert "which column holds the labels is not clear" in refusal(f"file,{column}", row)
    layout = read(f"file,{column}", row, label=column)
    assert (layout.name, layout.class_names, len(layout.notes)) == ("classes", ("0", "1"), 1)


# Labels


def test_words_for_a_missing_value_are_no_class(read: Read, refusal: Refusal) -> None:
    words = ("nan", "NA", "NaN", "null", "None", "<NA>", "")
    layout = read("file,label", lambda n: f"{n}.jpg,{[*words, *PETS][n] if n < 9 else pet(n)}")
    assert layout.class_names == PETS
    reasons = {found.path: found.reason for found in layout.rejects}
    for number, word in enumerate(words):
        assert (
            reasons[f"{number}.jpg"] == f"no usable label at line {number + 2} of t.csv: {word!r}"
        )
    assert layout.notes[1] == (
        "without a label: 6 rows with '<NA>', 'NA', 'NaN', 'None', 'nan', 'null'; if one of these "
        "is a class, give it another name"
    )
    line = refusal("file,label", lambda n: f"{n}.jpg,")
    assert "no row has a usable label in column 'label' (0.jpg: no usable label at line 2" in line


def test_a_number_written_in_two_ways_is_refused(refusal: Refusal, read: Read) -> None:
    line = refusal("file,label", lambda n: f"{n}.jpg,{('0', '1', '0.0', '1.0')[n % 4]}")
    assert line.endswith(
        "t.csv: labels '0' and '0.0' are one number written in two ways; write it in one way, or "
        "with a letter before it if they are two classes"
    )
    assert "labels '01' and '1'" in refusal("file,label", lambda n: f"{n}.jpg,{('1', '01')[n % 2]}")
    assert (
        len(read("file,label", lambda n: f"{n}.jpg,{('1.1', '1.10', '1')[n % 3]}").class_names) == 3
    )


def test_labels_that_differ_in_case_are_noted(read: Read) -> None:
    layout = read("file,label", lambda n: f"{n}.jpg,{('cat', 'dog', 'Cat ')[n % 3]}")
    assert layout.class_names == ("Cat", "cat", "dog")
    assert "invisible characters alone: 'Cat', 'cat'; they stay different" in layout.notes[1]


@pytest.mark.parametrize("both", ["cat|dog", '"cat, dog"', "cat dog", "dog;cat", "cat/dog"])
def test_several_labels_in_a_cell_are_refused(refusal: Refusal, both: str) -> None:
    line = refusal("file,label", lambda n: f"{n}.jpg,{('cat', 'dog', both)[n % 3]}")
    assert "every image must have one label, but 2.jpg has " in line
    assert "several labels per image are not supported" in line


def test_words_of_a_label_are_no_labels(read: Read) -> None:
    layout = read("file,label", lambda n: f"{n}.jpg,{('dog', 'hot dog', 'dog-dog')[n % 3]}")
    assert len(layout.class_names) == 3


def test_one_hot_columns_are_refused_with_the_remedy(refusal: Refusal) -> None:
    line = refusal("file,cat,dog", lambda n: f"{n}.jpg,{n % 2},{1 - n % 2}.0")
    assert line.endswith(
        "t.csv: one column must hold the labels, but cat, dog hold 0 and 1 (one-hot); add a column "
        "named label that holds the name of the class: 'dog' at line 2"
    )
    line = refusal("file,cat,dog", lambda n: f"{n}.jpg,1,{n % 2}")
    assert "cat, dog hold 0 and 1, 2 of them 1 at line 3: several labels per image are not " in line


# Formats


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"0.jpg": "cat"}', "JSON"),
        (b'\xef\xbb\xbf\n[{"file": "0.jpg"}]', "JSON"),
        (b'{"file": "0.jpg", "label": "cat"}\n{"file": "1.jpg", "label": "dog"}\n', "JSON"),
        (b"PK\x03\x04\x14\x00", "an Excel file (.xlsx) or a ZIP archive"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"\x1f\x8b\x08\x00", "compressed (gzip)"),
        ("file,label\n0.jpg,cat\n".encode("utf-16"), "UTF-16 text"),
        ("file,label\n0.jpg,café\n".encode("latin-1"), "not UTF-8 text"),
    ],
)
def test_another_format_is_named_with_the_remedy(
    tmp_path: Path, content: bytes, named: str
) -> None:
    (tmp_path / "0.jpg").write_bytes(b"not opened")
    table = tmp_path / "labels"
    table.write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_labels(tmp_path, LabelFile(table))
    assert str(refused.value) == (
        f"--labels must name a CSV file, received {table}, which is {named}; save it as CSV "
        "(UTF-8): a first line such as image,label and a row for each image"
    )


def test_the_command_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0.jpg").write_bytes(b"not opened")
    (tmp_path / "labels.json").write_text("[]")
    shown = pawtune(capsys, "preview", tmp_path, "--labels=labels.json")
    assert (shown.code, shown.out) == (2, "")
    assert "labels.json, which is JSON; save it as CSV (UTF-8)" in shown.err
