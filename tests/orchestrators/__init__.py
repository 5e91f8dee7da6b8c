"""Tests of the pipelines on orchestrators other than the local one."""
