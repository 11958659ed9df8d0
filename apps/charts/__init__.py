"""The figures of the page, in Altair: functions from plain rows to a chart, one a file."""
