"""What can be done with an exchange that was kept: repeat it, look at it, judge it again.

Pure: nothing here sends anything, nor reads the store.
"""
