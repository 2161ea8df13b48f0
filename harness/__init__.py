"""The hands: finds records, gets data, launches torchrun, asks timing, feeds reports."""
