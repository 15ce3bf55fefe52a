"""What a script calls: training and testing tools, inference, export."""
