"""One look for all figures: sizes, colours, panels, and how a figure is written.

Colours are those of Okabe and Ito, told apart under every common colour blindness; since lines
also differ in dashes and markers, and points in shape, nothing hangs on colour.
"""



