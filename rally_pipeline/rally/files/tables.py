"""Tables of the imports: files, their uploads, and every row that was not imported."""

from __future__ import annotations

from sqlalchemy import Column, LargeBinary, MetaData, Table

from rally_pipeline.warehouse.types import Instant, Integer, Json, Text

metadata = MetaData()


def _file_key() -> tuple[Column[str], Column[str]]:
    return Column("entity", Text(), primary_key=True), Column("sha256", Text(), primary_key=True)


import_files = Table(
    "import_files",
    metadata,
    *_file_key(),
    Column("file_name", Text(), nullable=False, comment="as it was called last; without folder"),
    Column("bytes", Integer(), nullable=False),
    Column("format", Text()),
    Column("encoding", Text()),
    Column("delimiter", Text()),
    Column("headers", Json(), comment="columns of the template that the rows were put into"),
    Column("status", Text(), nullable=False, comment="staging, open, done, refused, assumed"),
    Column("message", Text(), comment="why the whole file was refused"),
    Column("rows", Integer(), nullable=False, comment="= imported + duplicate + refused + unknown when done"),
    Column("imported", Integer(), nullable=False),
    Column("duplicate", Integer(), nullable=False),
    Column("refused", Integer(), nullable=False),
    Column("unknown", Integer(), nullable=False, comment="for a person to look up in Rally"),
    Column(
        "chunks", Integer(), nullable=False, comment="uploads planned; more may follow after unclear answers"
    ),
    Column("uploads", Integer(), nullable=False, comment="POST requests sent"),
    Column("upload_limit", Integer(), comment="bytes; set when Rally refused an upload as too large"),
    Column("numbering", Text(), comment="what the n of Rally's 'Row n' counts, once it is known"),
    Column("rejects_file", Text(), comment="name of the CSV beside the file; null if every row was imported"),
    Column("started_at", Instant(), nullable=False),
    Column("finished_at", Instant()),
)

import_chunks = Table(
    "import_chunks",
    metadata,
    *_file_key(),
    Column("chunk", Integer(), primary_key=True, autoincrement=False),
    Column("replaces", Integer(), comment="the upload whose missing or too many rows this one carries"),
    Column("round", Integer(), nullable=False, comment="how often its rows have been sent before"),
    Column(
        "state", Text(), nullable=False, comment="planned, sending, unknown, done, settled, refused, split"
    ),
    Column("rows", Integer(), nullable=False),
    Column("bytes", Integer(), nullable=False),
    Column("body_sha256", Text(), nullable=False),
    Column("body", LargeBinary(), comment="the CSV that is sent; emptied when the import is done"),
    Column("row_numbers", LargeBinary(), nullable=False, comment="two 64-bit integers a row: number, line"),
    Column("row_keys", LargeBinary(), nullable=False, comment="16 bytes a row: what it is recognised by"),
    Column("outcomes", LargeBinary(), comment="one letter a row: i, d, r, u"),
    Column("sent_at", Instant(), comment="server time before the POST"),
    Column("settled_at", Instant(), comment="server time after which nothing of it changes any more"),
    Column("total_rows", Integer(), comment="these three as Rally counted"),
    Column("imported", Integer()),
    Column("skipped", Integer()),
    Column("texts", Integer(), comment="error texts in the answer"),
    Column("message", Text(), comment="why there was no definite answer"),
)

import_row_errors = Table(
    "import_row_errors",
    metadata,
    *_file_key(),
    Column("row_number", Integer(), primary_key=True, autoincrement=False, comment="the header is row 1"),
    Column("no", Integer(), primary_key=True, autoincrement=False, comment="a row can have several problems"),
    Column("line_number", Integer(), nullable=False),
    Column("column_name", Text()),
    Column("outcome", Text(), nullable=False, comment="duplicate, refused, unknown"),
    Column("fault", Text(), nullable=False),
    Column("message", Text(), nullable=False),
    Column("origin", Text(), nullable=False, comment="file: seen before sending; rally: said by Rally"),
    Column("chunk", Integer()),
)

import_rejects = Table(
    "import_rejects",
    metadata,
    *_file_key(),
    Column("row_number", Integer(), primary_key=True, autoincrement=False),
    Column(
        "cells", Json(), nullable=False, comment="in template order; emptied into the rejects CSV at the end"
    ),
)
